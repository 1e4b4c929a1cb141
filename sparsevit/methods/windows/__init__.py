"""Activation sparsity: a window transformer skips its least active windows."""

from sparsevit.methods.windows.method import Windows

__all__ = ["Windows"]
