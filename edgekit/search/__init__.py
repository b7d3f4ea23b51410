"""Search: candidates that a strategy proposes, costs that a board measured, and what is known so far."""
