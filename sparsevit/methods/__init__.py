"""Kinds of sparsity, a folder each: what is skipped, and how a model is made to skip it."""

from sparsevit.methods.base import Method, compiled_form, exported_form, methods_in

__all__ = ["Method", "compiled_form", "exported_form", "methods_in"]
