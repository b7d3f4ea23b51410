"""Code generation: object code for the operators, C for what calls them."""
