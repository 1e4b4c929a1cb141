"""Whole models that give logits, a number for each class: in PyTorch, in other runtimes, in files.

Segmentors and classifiers are such; what differs is the network between images and logits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparsevit.latency.backends.artefacts import (
    Checked,
    Format,
    differs,
    file_format,
    moved,
    staged,
)
from sparsevit.latency.backends.base import autocast, sparsity_now
from sparsevit.latency.backends.export_check import ATTEMPTS
from sparsevit.latency.backends.graph import CPU, INPUT, Call, Graph, export_program
from sparsevit.latency.backends.onnx_runtime import prepare_onnxruntime, require_onnxruntime
from sparsevit.latency.backends.open_vino import prepare_openvino, require_openvino
from sparsevit.latency.backends.pytorch import require_compile, require_eager
from sparsevit.latency.backends.registry import Backend, by_graph
from sparsevit.sparsity.handle import sparse_parts
from sparsevit.tasks.pictures import pictures

LogitsRun = Callable[[Tensor], Tensor]
"""(B, 3, H, W) images, normalised -> (B, K, ...) logits; of the shape it was prepared for."""

OUTPUT = "logits"
LARGEST_DIFFERENCE = 1e-3
"""Of logits, against the largest one; and the share of classes that may be others."""


def logits_graph(model: nn.Module, network: nn.Module, images: Tensor) -> Graph:
    """A whole model as a graph, at the sparsity it has now.

    Args:
        model: on the CPU.
        network: what of it goes from images to logits.
        images: (B, 3, H, W) of the size to export.
    """
    program = export_program(network.eval(), images)
    return Graph(program, (INPUT,), (OUTPUT,), sparse=bool(sparse_parts(model)))


def running(call: Call) -> LogitsRun:
    """What runs an exported network, from what runs its graph."""
    return lambda images: torch.as_tensor(call(images)[0])


def in_pytorch(network: nn.Module, backbone: nn.Module, precision: str) -> LogitsRun:
    """A network as PyTorch runs it, at the sparsity that its backbone has now."""
    restore = sparsity_now(backbone)
    network.eval()

    def run(images: Tensor) -> Tensor:
        restore()
        with torch.no_grad(), autocast(precision, images.device):
            logits: Tensor = network(images)
        return logits.float()

    return run


def backends_of(
    eager: Callable[..., LogitsRun],
    compiled: Callable[..., LogitsRun],
    graph: Callable[[nn.Module, Tensor], Graph],
) -> dict[str, Backend[LogitsRun]]:
    """What executes whole models, by name.

    Args:
        eager, compiled: prepare one; see :class:`Backend`.
        graph: a model and images -> its graph.
    """
    return {
        one.name: one
        for one in (
            Backend("eager", require_eager, eager),
            Backend("compile", require_compile, compiled),
            Backend(
                "onnxruntime", require_onnxruntime, by_graph(prepare_onnxruntime, graph, running)
            ),
            Backend("openvino", require_openvino, by_graph(prepare_openvino, graph, running)),
        )
    }


def formats_of(graph: Callable[[nn.Module, Tensor], Graph]) -> dict[str, Format[LogitsRun]]:
    """The files in which whole models are written, images in, logits out."""
    return {name: file_format(name, graph, running) for name in ("onnx", "openvino", "pt2")}


@dataclass(frozen=True)
class Agreement:
    """How far the logits of the same images are apart.

    Attributes:
        logits: the largest difference, against the largest logit; infinite where one is NaN.
        classes: share of the images, or pixels, whose class differs.
    """

    logits: float
    classes: float

    def close(self) -> bool:
        """Whether a file may be kept."""
        return max(self.logits, self.classes) <= LARGEST_DIFFERENCE


def compare(logits: Tensor, expected: Tensor) -> Agreement:
    """Compare logits (B, K, ...) of the same images."""
    if logits.shape != expected.shape:
        return Agreement(float("inf"), 1.0)
    scale = float(expected.abs().max()) or 1.0
    gap = float((logits - expected).abs().max()) / scale
    classes = (logits.argmax(1) != expected.argmax(1)).to(torch.float32).mean()
    # a NaN is no agreement
    return Agreement(gap if gap == gap else float("inf"), float(classes))


def write_compared(
    form: Format[LogitsRun],
    model: Any,
    shape: tuple[int, ...],
    target: Path,
    prepare: Callable[[str, Any, Tensor], LogitsRun],
) -> Checked:
    """Write a whole model, and keep the file if its logits on drawn pictures are eager PyTorch's.

    Args:
        form, model, target: see :meth:`sparsevit.tasks.Task.write_checked`.
        shape: (B, 3, H, W) of what the network is given.
        prepare: backend, model and images -> what runs it.

    Raises:
        UserError: they differ, or the file cannot be written.
    """
    with staged(target) as folder:
        images = pictures(model, shape, 0)
        eager = prepare("eager", model, images)
        written = form.write(model, images, folder / target.name)
        run = form.load(written, "fp32", CPU)
        # others where rounding decides which of two windows is kept
        for attempt in range(ATTEMPTS):
            images = pictures(model, shape, attempt + 1)
            expected = eager(images)
            found = compare(run(images), expected)
            if found.close():
                break
        else:
            raise differs(
                form.name, f"{found.logits:.2g} in logits, {found.classes:.2%} of the classes"
            )
        files = moved(folder, written, target)
    outputs = {OUTPUT: list(expected.shape)}
    return Checked(files, {"logits": found.logits, "classes": found.classes}, outputs)
