"""SparseViT: high-resolution window transformers that skip the windows that hold nothing.

Importing this package is cheap: no torch, no mmdet. The rooms are imported where they are used,
e.g. ``import sparsevit.models`` registers the backbone in mmdet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparsevit.methods.windows.sparsify import densify, sparsify

__version__ = "0.1.0"
__all__ = ["densify", "sparsify"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from sparsevit.methods.windows import sparsify as module

        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
