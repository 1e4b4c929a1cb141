"""Faster ways through a stage than the plain one of :mod:`sparsevit.methods.windows.forward`."""

from __future__ import annotations

from sparsevit.methods.windows.forward import Route
from sparsevit.methods.windows.routes.kernels import kernels_on_map
from sparsevit.methods.windows.routes.parts import in_parts, token_magnitudes_in_parts


def eager() -> Route:
    """PyTorch, with Triton kernels on GPUs and parts that suit the caches of CPUs."""
    return Route(magnitudes=token_magnitudes_in_parts, on_map=kernels_on_map, split=in_parts)
