"""Activation sparsity: the windows of a window transformer that hold nothing are skipped."""

from sparsevit.methods.windows.method import Windows

__all__ = ["Windows"]
