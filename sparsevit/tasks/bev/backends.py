"""What executes a whole BEVDet: images and how their cameras see in, the head's maps out.

>>> inputs = model.data_preprocessor(batch, False)["inputs"]
>>> run = prepare_bevdet("onnxruntime", model, inputs)  # at the sparsity it has now
>>> maps = run(inputs)  # a dict of raw maps for each task of the head
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparsevit.latency.backends.artefacts import Format, file_format
from sparsevit.latency.backends.base import autocast, sparsity_now
from sparsevit.latency.backends.graph import CPU, INPUT, Call, Graph, export_program
from sparsevit.latency.backends.onnx_runtime import prepare_onnxruntime, require_onnxruntime
from sparsevit.latency.backends.open_vino import prepare_openvino, require_openvino
from sparsevit.latency.backends.pytorch import require_compile, require_eager
from sparsevit.latency.backends.registry import Backend, by_graph, require_whole_backend
from sparsevit.methods import compiled_form, exported_form
from sparsevit.models.bev import Cameras
from sparsevit.sparsity.handle import sparse_parts

Inputs = Mapping[str, Tensor]
"""``imgs`` (B, N, 3, H, W), normalised, and the fields of ``Cameras``."""

Maps = list[dict[str, Tensor]]
"""Of each task of the head: name of a map -> (B, channels, ny, nx), raw."""

BevRun = Callable[[Inputs], Maps]
"""Of inputs of the shape it was prepared for; cameras may have any values."""

_NAMES = ("imgs", *Cameras._fields)
GRAPH_INPUTS = (INPUT, *Cameras._fields)


class Network(nn.Module):
    """A BEVDet up to its head's maps, with tensors in and tensors out.

    Args:
        model: a ``BEVDet``.
        backbone: in place of the model's own.
    """

    def __init__(self, model: Any, backbone: Any) -> None:
        super().__init__()
        self.img_backbone, self.img_neck = backbone, model.img_neck
        self.view = model.img_view_transformer
        self.img_bev_encoder_backbone = model.img_bev_encoder_backbone
        self.img_bev_encoder_neck = model.img_bev_encoder_neck
        self.head = model.pts_bbox_head

    def forward(self, imgs: Tensor, *cameras: Tensor) -> tuple[Tensor, ...]:
        """(B, N, 3, H, W) and the fields of ``Cameras`` -> all maps, as in :func:`map_names`."""
        x = self.features(tuple(self.img_backbone(imgs.flatten(0, 1))))
        x = self.view(x.unflatten(0, imgs.shape[:2]), Cameras(*cameras))
        return self.maps(x)

    def features(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Maps of the backbone -> one of them."""
        found: Tensor = self.img_neck(maps)
        return found

    def maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, C, ny, nx) seen from above -> the head's maps."""
        tasks = self.head(self.img_bev_encoder_neck(self.img_bev_encoder_backbone(x)))
        return tuple(one for task in tasks for one in task.values())


def map_names(model: Any) -> list[tuple[str, ...]]:
    """The names of the maps of each task, in the order of the head."""
    return [tuple(task.heads) for task in model.pts_bbox_head.task_heads]


def by_task(maps: Sequence[Any], names: Sequence[tuple[str, ...]]) -> Maps:
    """The maps of all tasks, in order, as the head gives them."""
    left = iter(maps)
    return [{name: torch.as_tensor(next(left)) for name in task} for task in names]


def bevdet_graph(model: Any, inputs: Any) -> Graph:
    """A BEVDet in evaluation mode as a graph from images and cameras to the head's raw maps.

    Where points fall follows from the cameras when it runs, so that one file is for every car.

    Args:
        model: at the sparsity to export.
        inputs: :data:`Inputs` of the size to export.
    """
    if inputs["imgs"].device != CPU:
        model = copy.deepcopy(model).to(CPU)
    network = Network(model, exported_form(model.img_backbone)).eval()
    program = export_program(network, *(inputs[name].to(CPU) for name in _NAMES))
    return Graph(program, GRAPH_INPUTS, output_names(model), sparse=bool(sparse_parts(model)))


def output_names(model: Any) -> tuple[str, ...]:
    """``task0_reg`` and so on: of a graph's outputs."""
    return tuple(f"task{i}_{name}" for i, names in enumerate(map_names(model)) for name in names)


def running(call: Call) -> Callable[[Inputs], list[Any]]:
    """What runs an exported BEVDet, from what runs its graph: all maps in one list."""
    return lambda inputs: list(call(*(inputs[name] for name in _NAMES)))


def prepare_eager(model: Any, inputs: Any, precision: str, device: torch.device) -> Any:
    """The model's own modules, at the sparsity that it has now."""
    return _in_pytorch(Network(model, model.img_backbone), precision)


def prepare_compile(model: Any, inputs: Any, precision: str, device: torch.device) -> Any:
    """Compiled by :func:`torch.compile` in three pieces: a sparse backbone in the form that its
    method gives it, the neck, and what comes after the pooling. That is planned when cameras come,
    and stays as it is."""
    dense = model.img_backbone
    sparse = compiled_form(dense, frozen=True)
    network: Any = Network(model, torch.compile(dense, dynamic=False) if sparse is None else sparse)
    network.features = torch.compile(network.features, dynamic=False)
    network.maps = torch.compile(network.maps, dynamic=False)
    return _in_pytorch(network, precision)


def _in_pytorch(network: Network, precision: str) -> Callable[[Inputs], list[Tensor]]:
    restore = sparsity_now(network.img_backbone)
    network.eval()

    def run(inputs: Inputs) -> list[Tensor]:
        restore()
        with torch.no_grad(), autocast(precision, inputs["imgs"].device):
            return [one.float() for one in network(*(inputs[name] for name in _NAMES))]

    return run


BACKENDS: dict[str, Backend[Any]] = {
    one.name: one
    for one in (
        Backend("eager", require_eager, prepare_eager),
        Backend("compile", require_compile, prepare_compile),
        Backend(
            "onnxruntime", require_onnxruntime, by_graph(prepare_onnxruntime, bevdet_graph, running)
        ),
        Backend("openvino", require_openvino, by_graph(prepare_openvino, bevdet_graph, running)),
    )
}
"""Of a whole BEVDet."""

FORMATS: dict[str, Format[Any]] = {
    name: file_format(name, bevdet_graph, running) for name in ("onnx", "openvino", "pt2")
}
"""Of a whole BEVDet: images and cameras in, raw maps out."""


def prepare_bevdet(
    name: str,
    model: Any,
    inputs: Inputs,
    precision: str = "fp32",
    device: torch.device | None = None,
) -> BevRun:
    """Make a BEVDet ready to run in a backend, at the sparsity that it is set to now.

    What is returned stays at that sparsity, whatever the model is set to later.

    Args:
        name: one of ``BACKENDS``.
        model: a ``BEVDet`` on ``device``; a dense one too.
        inputs: what its ``data_preprocessor`` makes of a batch.
        precision: one of :data:`sparsevit.latency.backends.PRECISIONS`.
        device: that of the images where None.

    Raises:
        UserError: the backend or precision is unknown, cannot be had here or is not installed.
    """
    where = device or inputs["imgs"].device
    require_whole_backend("bev-detector", BACKENDS, name, precision, where)
    model.eval()
    run, names = BACKENDS[name].prepare(model, inputs, precision, where), map_names(model)  # type: ignore[arg-type]
    return lambda given: by_task(run(given), names)


def as_test_step(model: Any, run: BevRun) -> Callable[[dict[str, Any]], list[Any]]:
    """In place of ``model.test_step`` or ``model.val_step``: the same results, run by a backend.

    Args:
        model: its ``data_preprocessor`` makes the batch ready, its head finds boxes in the maps.
        run: of :func:`prepare_bevdet`; a batch must become inputs of the shape that it takes.

    Returns:
        batch of a data loader -> its data samples, with ``pred_instances_3d``.
    """

    def step(batch: dict[str, Any]) -> list[Any]:
        data = model.data_preprocessor(batch, False)
        device = data["inputs"]["imgs"].device
        maps = [
            {name: one.to(device) for name, one in task.items()} for task in run(data["inputs"])
        ]
        samples: list[Any] = model.add_boxes(maps, data["data_samples"])
        return samples

    return step
