"""pt2 packages: compiled ahead of time by AOTInductor, run without this project's Python."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparsevit.errors import UserError
from sparsevit.latency.backends.base import Run, require_compiler, require_cpu, require_precision
from sparsevit.latency.backends.graph import export_graph, quiet_exporters


def check_pt2() -> None:
    """Refuse where no pt2 package can be made.

    Raises:
        UserError: there is no C++ compiler, or PyTorch is too old.
    """
    of_inductor("aoti_compile_and_package")
    require_compiler("A pt2 package")


def write_pt2(backbone: nn.Module, images: Tensor, path: Path) -> Path:
    """Write a backbone at its sparsity as a pt2 package for the CPU of this machine.

    Args:
        backbone, images: see :func:`sparsevit.latency.backends.graph.export_graph`; on the CPU.
        path: file to write, ``*.pt2``.

    Raises:
        UserError: see :func:`check_pt2`.
    """
    check_pt2()
    compile_and_package = of_inductor("aoti_compile_and_package")
    program = export_graph(backbone, images)
    with torch.no_grad(), quiet_exporters():
        compile_and_package(program, package_path=os.fspath(path))
    return path


def load_pt2(path: Path, precision: str, device: torch.device) -> Run:
    """A pt2 package of :func:`write_pt2`.

    Raises:
        UserError: PyTorch is too old, or another device or precision than the package's is asked.
    """
    require_cpu("pt2", device)
    require_precision("pt2", precision, ("fp32",))
    package = of_inductor("aoti_load_package")(os.fspath(path))

    def run(images: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return list(package(images))

    return run


def of_inductor(name: str) -> Callable[..., Any]:
    import torch._inductor

    found: Callable[..., Any] | None = getattr(torch._inductor, name, None)
    if found is None:
        raise UserError(
            f"PyTorch {torch.__version__} makes no pt2 packages.",
            "Install PyTorch 2.6 or newer, or take --format onnx or openvino.",
        )
    return found
