"""Model files to one `Model`: a Relax module in QDQ form and what the file said about it."""

from edgekit.frontend.load import load_model, load_torch, open_source

__all__ = ["load_model", "load_torch", "open_source"]
