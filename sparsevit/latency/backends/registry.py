"""The backends by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from sparsevit.errors import UserError
from sparsevit.latency.backends.base import DTYPES, Run
from sparsevit.latency.backends.graph import Call, Export, Graph, backbone_graph
from sparsevit.latency.backends.onnx_runtime import prepare_onnxruntime, require_onnxruntime
from sparsevit.latency.backends.open_vino import prepare_openvino, require_openvino
from sparsevit.latency.backends.pytorch import (
    prepare_compile,
    prepare_eager,
    require_compile,
    require_eager,
)
from sparsevit.latency.backends.tensor_rt import prepare_tensorrt, require_tensorrt

PRECISIONS = tuple(DTYPES)


Prepared = TypeVar("Prepared")

Prepare = Callable[[nn.Module, Tensor, str, torch.device], Prepared]
"""(model in evaluation mode, example images, precision, device) -> what runs it."""


@dataclass(frozen=True)
class Backend(Generic[Prepared]):
    """What can execute a backbone, or a whole model of a task.

    Attributes:
        name: as the command line has it.
        require: (precision, device) -> raises a UserError where it cannot be had, in a moment.
        prepare: see :data:`Prepare`.
    """

    name: str
    require: Callable[[str, torch.device], None]
    prepare: Prepare[Prepared]


def by_graph(
    prepare: Callable[[Export, str, torch.device], Call],
    graph_of: Callable[[nn.Module, Tensor], Graph],
    running: Callable[[Call], Prepared],
) -> Prepare[Prepared]:
    """How a runtime that is given a graph prepares models of a kind.

    Args:
        prepare: of the runtime.
        graph_of: (model, images) -> its graph.
        running: makes of what runs the graph what runs the model.
    """

    def prepared(
        model: nn.Module, images: Tensor, precision: str, device: torch.device
    ) -> Prepared:
        return running(prepare(lambda: graph_of(model, images), precision, device))

    return prepared


def of_backbone(call: Call) -> Run:
    """A backbone's graph takes images and gives feature maps, as it is."""
    return call


def _runtime(
    name: str,
    require: Callable[[str, torch.device], None],
    prepare: Callable[[Export, str, torch.device], Call],
) -> Backend[Run]:
    return Backend(name, require, by_graph(prepare, backbone_graph, of_backbone))


BACKENDS: dict[str, Backend[Run]] = {
    one.name: one
    for one in (
        Backend("eager", require_eager, prepare_eager),
        Backend("compile", require_compile, prepare_compile),
        _runtime("onnxruntime", require_onnxruntime, prepare_onnxruntime),
        _runtime("openvino", require_openvino, prepare_openvino),
        _runtime("tensorrt", require_tensorrt, prepare_tensorrt),
    )
}


def require_backend(name: str, precision: str, device: torch.device) -> None:
    """Refuse a backend that cannot be had here, before any work is put into it.

    Args:
        name: one of ``BACKENDS``.
        precision: one of ``PRECISIONS``.
        device: where it shall run.

    Raises:
        UserError: the backend or precision is unknown, is not for this device, or something that
            it needs is not installed.
    """
    _require(BACKENDS, name, precision, device)


def require_whole_backend(
    whole: str,
    backends: Mapping[str, Backend[Any]],
    name: str,
    precision: str,
    device: torch.device,
) -> None:
    """Refuse a backend that cannot be had here for the whole models of a task.

    Args:
        whole: what such a model is called.
        backends: those that execute it.
        name, precision, device: see :func:`require_backend`.

    Raises:
        UserError: as :func:`require_backend`, or the backend executes backbones only.
    """
    if name in BACKENDS and name not in backends:
        raise UserError(
            f"The backend {name} runs only a backbone, not a whole {whole}.",
            f"Use --scope backbone, or one of {', '.join(backends)}.",
        )
    _require(backends, name, precision, device)


def _require(
    backends: Mapping[str, Backend[Any]], name: str, precision: str, device: torch.device
) -> None:
    if name not in backends:
        raise UserError(f"There is no backend {name!r}.", f"Use one of {', '.join(backends)}.")
    if precision not in PRECISIONS:
        names = ", ".join(PRECISIONS)
        raise UserError(f"There is no precision {precision!r}.", f"Use one of {names}.")
    backends[name].require(precision, device)


def prepare(
    name: str,
    backbone: nn.Module,
    images: Tensor,
    precision: str = "fp32",
    device: torch.device | None = None,
) -> Run:
    """Make a backbone ready to run in a backend, at the sparsity that it is set to now.

    What is returned stays at that sparsity, whatever the backbone is set to later.

    Args:
        name: one of ``BACKENDS``.
        backbone: on ``device``; any module from images to feature maps, also mmdet's own.
        images: (B, 3, H, W), normalised; their size is the only one that exported graphs take.
        precision: one of ``PRECISIONS``.
        device: that of the images where None.

    Raises:
        UserError: the backend or precision is unknown, cannot be had here or is not installed.
    """
    where = device or images.device
    require_backend(name, precision, where)
    backbone.eval()  # which returns nothing where it is mmdet's own Swin
    return BACKENDS[name].prepare(backbone, images, precision, where)
