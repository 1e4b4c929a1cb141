"""SparseViT: high-resolution window transformers that skip the windows that hold nothing.

Importing this package is cheap: no torch, no mmdet. The rooms are imported where they are used,
e.g. ``import sparsevit.models`` registers the backbone in mmdet.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparsevit.methods.windows.sparsify import densify, sparsify
    from sparsevit.sparsity.random import RandomSparsity
    from sparsevit.tuning import calibrate, search_configuration

__version__ = "0.1.0"
__all__ = ["RandomSparsity", "calibrate", "densify", "search_configuration", "sparsify"]

_FROM = {
    "RandomSparsity": "sparsevit.sparsity.random",
    "calibrate": "sparsevit.tuning",
    "densify": "sparsevit.methods.windows.sparsify",
    "search_configuration": "sparsevit.tuning",
    "sparsify": "sparsevit.methods.windows.sparsify",
}


def __getattr__(name: str) -> Any:
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_FROM[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
