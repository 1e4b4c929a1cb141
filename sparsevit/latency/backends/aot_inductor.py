"""pt2 packages: compiled ahead of time by AOTInductor, run without this project's Python."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsevit.errors import UserError
from sparsevit.latency.backends.base import require_compiler, require_cpu, require_precision
from sparsevit.latency.backends.graph import Call, Export, quiet_exporters
from sparsevit.ops.native.private import keep_inductor_private


def check_pt2() -> None:
    """Refuse where no pt2 package can be made.

    Raises:
        UserError: there is no C++ compiler, or PyTorch is too old.
    """
    _inductor("aoti_compile_and_package")
    require_compiler("A pt2 package")
    keep_inductor_private()


def write_pt2(export: Export, path: Path) -> Path:
    """Write a graph as a pt2 package for the CPU of this machine.

    Args:
        export: makes the graph.
        path: file to write, ``*.pt2``.

    Raises:
        UserError: see :func:`check_pt2`.
    """
    check_pt2()
    graph = export()
    with torch.no_grad(), quiet_exporters():
        _inductor("aoti_compile_and_package")(graph.program, package_path=os.fspath(path))
    return path


def load_pt2(path: Path, precision: str, device: torch.device) -> Call:
    """A pt2 package of :func:`write_pt2`.

    Raises:
        UserError: PyTorch is too old, or another device or precision than the package's is asked.
    """
    require_cpu("pt2", device)
    require_precision("pt2", precision, ("fp32",))
    package = _inductor("aoti_load_package")(os.fspath(path))

    def call(*inputs: Tensor) -> list[Tensor]:
        with torch.no_grad():
            found = package(*inputs)
        # a graph of one output gives it bare
        return [found] if isinstance(found, Tensor) else list(found)

    return call


def _inductor(name: str) -> Callable[..., Any]:
    import torch._inductor

    found: Callable[..., Any] | None = getattr(torch._inductor, name, None)
    if found is None:
        raise UserError(
            f"PyTorch {torch.__version__} cannot write pt2 packages.",
            "Install PyTorch 2.6 or newer, or use --format onnx or openvino.",
        )
    return found
