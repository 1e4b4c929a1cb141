"""mmpretrain imported where torchvision is missing, or built for another PyTorch.

mmpretrain takes a few names from torchvision when it is imported: for boxes of visual grounding,
for MAE's crop, for images of PIL. Classifiers use none of them. Where torchvision does not work,
the names stand for classes that say so when they are used, and only while mmpretrain is imported;
no installed file is touched.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from sparsevit.errors import UserError

_TORCHVISION = "torchvision"
_MODULES = (
    _TORCHVISION,
    *(f"{_TORCHVISION}.{name}" for name in ("transforms", "ops")),
    *(f"{_TORCHVISION}.transforms.{name}" for name in ("functional", "transforms")),
    f"{_TORCHVISION}.ops.boxes",
)
_ROOMS = ("models", "datasets", "evaluation", "engine", "visualization")


def import_mmpretrain() -> None:
    """Import all that mmpretrain registers; what mmpretrain has of torchvision is missing from it
    where torchvision does not work.

    Raises:
        UserError: mmpretrain is not installed, or something else that it needs.
    """
    names = [f"mmpretrain.{room}" for room in _ROOMS]
    if all(name in sys.modules for name in names):
        return
    try:
        importlib.import_module("mmpretrain.registry")
        with contextlib.nullcontext() if _torchvision_works() else _stand_in():
            for name in names:
                importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"Classification needs mmpretrain, which is not installed ({error}).",
            "Install it: pip install 'sparsevit[all]'.",
        ) from error


def _torchvision_works() -> bool:
    try:
        for name in _MODULES:
            importlib.import_module(name)
    except Exception:  # one that is built for another PyTorch raises whatever it likes
        return False
    return True


@contextlib.contextmanager
def _stand_in() -> Iterator[None]:
    """Meanwhile torchvision's names can be imported.

    Multimodal models are left out, as mmpretrain does by itself where their libraries are missing:
    those would take what stands here for torchvision.
    """
    dependency: Any = importlib.import_module("mmpretrain.utils.dependency")
    multimodal, dependency.WITH_MULTIMODAL = dependency.WITH_MULTIMODAL, False
    broken = {name: sys.modules.pop(name) for name in list(sys.modules) if _is_its(name)}
    try:
        for name in _MODULES:
            sys.modules[name] = module = _Names(name)
            parent, _, last = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], last, module)
        yield
    finally:
        dependency.WITH_MULTIMODAL = multimodal
        for name in _MODULES:
            sys.modules.pop(name, None)
        sys.modules.update(broken)


def _is_its(name: str) -> bool:
    return name.partition(".")[0] == _TORCHVISION


class _Names(ModuleType):
    """A module that has every name: each a class that cannot be used."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []
        self.__spec__ = ModuleSpec(name, None)

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(self: Any, *args: Any, **kwargs: Any) -> None:
            raise ImportError(f"{self.__module__}.{name} is needed, and torchvision does not work.")

        return type(name, (), {"__module__": self.__name__, "__init__": missing})
