"""The module that stands in for ``mmcv._ext``: every op has a name, those we have do the work."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

from sparsevit.errors import UserError

NAME = "mmcv._ext"


class MissingOpError(UserError, RuntimeError):
    """A model uses an op of mmcv that exists only in a compiled mmcv."""


class ExtModule(ModuleType):
    """Stands in for mmcv's extension module.

    mmcv asks for each op's name when ``mmcv.ops`` is imported, long before any is used; so every
    name resolves, and an op that is not here complains when it is called.
    """

    def __init__(self, backend: str, ops: Mapping[str, Callable[..., Any]]) -> None:
        super().__init__(NAME, f"The ops that detectors use, by sparsevit (backend: {backend}).")
        self.__sparsevit_backend__ = backend
        self.__spec__ = ModuleSpec(NAME, _Loader(), origin="sparsevit.ops.mmcv_ext")
        self.__loader__ = self.__spec__.loader
        self.__package__ = "mmcv"
        self.__dict__.update(ops)

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        # No op starts so; what does is Python or a tool asking what kind of thing this is.
        if name.startswith("_"):
            raise AttributeError(f"module {NAME!r} has no attribute {name!r}")
        return _missing_op(name)


class _Loader(Loader):
    """Lets ``importlib.util.find_spec("mmcv._ext")`` and ``pkgutil`` answer; loads nothing."""

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return sys.modules.get(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """The module was complete when it was made."""


def _missing_op(name: str) -> Callable[..., NoReturn]:
    def missing(*args: Any, **kwargs: Any) -> NoReturn:
        raise MissingOpError(
            f"The op {name!r} of mmcv was called, but the installed mmcv has no compiled ops and "
            f"sparsevit supplies only those that common detectors use.",
            "Install mmcv with its ops, which needs a C++ compiler: "
            "MMCV_WITH_OPS=1 pip install --force-reinstall --no-deps --no-build-isolation "
            "--no-binary onedl-mmcv onedl-mmcv (or a wheel of mmcv with ops for your torch). "
            "sparsevit then uses it.",
        )

    missing.__name__ = missing.__qualname__ = name
    return missing
