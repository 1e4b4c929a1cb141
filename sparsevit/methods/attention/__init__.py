"""Attention that connects only the pairs that matter (Sparsifiner, arXiv 2303.13755)."""

from sparsevit.methods.attention.method import Connections, SparseConnections

__all__ = ["Connections", "SparseConnections"]
