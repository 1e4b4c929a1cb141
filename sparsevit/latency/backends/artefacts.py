"""The formats in which a model is written, what loads them, and how a file gets its name."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from sparsevit.errors import UserError
from sparsevit.latency.backends.aot_inductor import check_pt2, load_pt2, write_pt2
from sparsevit.latency.backends.base import Run
from sparsevit.latency.backends.graph import Call, Export, Graph, backbone_graph
from sparsevit.latency.backends.onnx_runtime import check_onnx, load_onnx, write_onnx
from sparsevit.latency.backends.open_vino import check_openvino, load_openvino, write_openvino
from sparsevit.latency.backends.registry import of_backbone
from sparsevit.latency.backends.tensor_rt import check_tensorrt, load_tensorrt, write_tensorrt

Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class Format(Generic[Loaded]):
    """A format of files that a runtime loads.

    Attributes:
        name: as the command line has it.
        suffix: of its file; there may be others beside it, with the same stem.
        packages: distributions that made the file or run it, whose versions are worth knowing.
        check: raises a UserError where it cannot be written or run here.
        write: (model in evaluation mode on the CPU, images, path) -> path.
        load: (path, precision, device) -> what runs it.
        device: what it is compared on.
    """

    name: str
    suffix: str
    packages: tuple[str, ...]
    check: Callable[[], None]
    write: Callable[[nn.Module, Tensor, Path], Path]
    load: Callable[[Path, str, torch.device], Loaded]
    device: str = "cpu"


def file_format(
    name: str,
    graph_of: Callable[[nn.Module, Tensor], Graph],
    running: Callable[[Call], Loaded],
) -> Format[Loaded]:
    """A format of files for models of a kind.

    Args:
        name: ``onnx``, ``openvino``, ``pt2`` or ``tensorrt``.
        graph_of: (model, images) -> its graph.
        running: makes of what runs the graph what runs the model.
    """
    suffix, packages, check, write_graph, load_graph, device = _FORMATS[name]

    def write(model: nn.Module, images: Tensor, path: Path) -> Path:
        return write_graph(lambda: graph_of(model, images), path)

    def load(path: Path, precision: str, device: torch.device) -> Loaded:
        return running(load_graph(path, precision, device))

    return Format(name, suffix, packages, check, write, load, device)


_Write = Callable[[Export, Path], Path]
_Load = Callable[[Path, str, torch.device], Call]
_ONNX = ("onnx", "onnxscript")
_FORMATS: dict[str, tuple[str, tuple[str, ...], Callable[[], None], _Write, _Load, str]] = {
    "onnx": (".onnx", (*_ONNX, "onnxruntime"), check_onnx, write_onnx, load_onnx, "cpu"),
    "openvino": (".xml", ("openvino",), check_openvino, write_openvino, load_openvino, "cpu"),
    "pt2": (".pt2", (), check_pt2, write_pt2, load_pt2, "cpu"),
    "tensorrt": (
        ".engine",
        ("tensorrt", *_ONNX),
        check_tensorrt,
        write_tensorrt,
        load_tensorrt,
        "cuda",
    ),
}

FORMATS: dict[str, Format[Run]] = {
    name: file_format(name, backbone_graph, of_backbone) for name in _FORMATS
}
"""Of a backbone: images in, feature maps out."""


# --- how a file gets its name ---------------------------------------------------------------------


@dataclass(frozen=True)
class Checked:
    """A file whose outputs agree with eager PyTorch's.

    Attributes:
        files: all that belongs to it.
        differences: the largest of each kind of output.
        outputs: name -> shape.
        compared: results of a whole model that were compared; None for a backbone.
        threshold: score from which they were compared, where not that of the config.
    """

    files: list[Path]
    differences: dict[str, float]
    outputs: dict[str, list[int]]
    compared: int | None = None
    threshold: float | None = None


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A folder beside the target, that is gone afterwards."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.stem}-", dir=target.parent) as folder:
            yield Path(folder)
    except OSError as error:
        raise UserError(
            f"{target} cannot be written: {error.strerror or error}.",
            "Choose a folder that is writable and has free space.",
        ) from error


def moved(folder: Path, written: Path, target: Path) -> list[Path]:
    """Move all files of a folder to beside the target, the one that is loaded last.

    So it never stands there without its weights.
    """
    files = sorted(folder.iterdir(), key=lambda path: path == written)
    final = [target.with_name(path.name) for path in files]
    for path, to in zip(files, final, strict=True):
        os.replace(path, to)
    return final


def differs(name: str, how: str) -> UserError:
    """That a file does not compute what eager PyTorch does."""
    return UserError(
        f"The {name} file differs from eager PyTorch by {how}, and was removed.",
        "Please report it with the output of `sparsevit doctor`; another --format may work.",
    )
