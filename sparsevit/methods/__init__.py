"""Kinds of sparsity, one folder each: what is skipped, and how a model is made to skip it."""

from sparsevit.methods.attention import Connections
from sparsevit.methods.base import Method, compiled_form, exported_form, methods_in, networks_of
from sparsevit.methods.weights import Weights
from sparsevit.methods.windows import Windows

METHODS: dict[str, type[Method]] = {
    method.name: method for method in (Windows, Weights, Connections)
}
"""Every method by its name. A config is asked of each, in this order, whether it is of its kind."""

__all__ = ["METHODS", "Method", "compiled_form", "exported_form", "methods_in", "networks_of"]
