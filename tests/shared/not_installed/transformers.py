"""Stands in the way of transformers, as if it were not installed."""

raise ModuleNotFoundError("No module named 'transformers'", name="transformers")
