"""Weight sparsity: a vision transformer trained sparse from its first step (SViTE)."""

from sparsevit.methods.weights.method import Weights

__all__ = ["Weights"]
