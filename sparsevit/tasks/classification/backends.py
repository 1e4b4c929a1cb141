"""What executes a whole classifier: images in, a number for each class out.

>>> run = prepare_classifier("onnxruntime", model, images)  # at the sparsity it has now
>>> logits = run(images)  # (B, K)
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparsevit.errors import UserError
from sparsevit.latency.backends.artefacts import Checked, Format
from sparsevit.latency.backends.graph import Graph
from sparsevit.latency.backends.registry import require_whole_backend
from sparsevit.methods import compiled_form, exported_form
from sparsevit.tasks.logits import (
    LogitsRun,
    backends_of,
    formats_of,
    in_pytorch,
    logits_graph,
    write_compared,
)


class Network(nn.Module):
    """A classifier without what it does with logits.

    Args:
        model: an ``ImageClassifier`` of mmpretrain.
        backbone: in place of the model's own.
    """

    def __init__(self, model: Any, backbone: Any = None) -> None:
        super().__init__()
        self.backbone = model.backbone if backbone is None else backbone
        self.neck = model.neck
        self.head = model.head

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, K)."""
        return self.classify(self.backbone(images))

    def classify(self, maps: Any) -> Tensor:
        """What the backbone gives -> (B, K)."""
        logits: Tensor = self.head(maps if self.neck is None else self.neck(maps))
        return logits


def classifier_graph(model: nn.Module, images: Tensor) -> Graph:
    """A classifier in evaluation mode as a graph from images to logits.

    Args:
        model: at the sparsity to export, on the CPU.
        images: (B, 3, H, W) of the size to export.
    """
    network = Network(model, exported_form(model.get_submodule("backbone")))
    return logits_graph(model, network, images)


def _prepare_eager(
    model: nn.Module, images: Tensor, precision: str, device: torch.device
) -> LogitsRun:
    return in_pytorch(Network(model), model, precision)


def _prepare_compile(
    model: nn.Module, images: Tensor, precision: str, device: torch.device
) -> LogitsRun:
    """In two pieces where the backbone's method has a compiled form for it, else in one."""
    sparse = compiled_form(model.get_submodule("backbone"), frozen=True)
    if sparse is None:
        whole: Any = torch.compile(Network(model).eval(), dynamic=False)
        return in_pytorch(whole, model, precision)
    network: Any = Network(model, sparse)
    network.classify = torch.compile(network.classify, dynamic=False)
    return in_pytorch(network, sparse, precision)


BACKENDS = backends_of(_prepare_eager, _prepare_compile, classifier_graph)
"""Of a whole classifier."""

FORMATS = formats_of(classifier_graph)
"""Of a whole classifier: images in, logits out."""


def prepare_classifier(
    name: str,
    model: Any,
    images: Tensor,
    precision: str = "fp32",
    device: torch.device | None = None,
) -> LogitsRun:
    """Make a classifier ready to run in a backend, at the sparsity that it is set to now.

    What is returned stays at that sparsity, whatever the model is set to later.

    Args:
        name: one of ``BACKENDS``.
        model: an ``ImageClassifier`` of mmpretrain, on ``device``; dense ones too.
        images: (B, 3, H, W), normalised; exported graphs take that size only.
        precision: one of :data:`sparsevit.latency.backends.PRECISIONS`.
        device: that of the images where None.

    Raises:
        UserError: the backend or precision is unknown, cannot be had here or is not installed, or
            the classifier has no head.
    """
    where = device or images.device
    require_whole_backend("classifier", BACKENDS, name, precision, where)
    _require_head(model)
    model.eval()
    return BACKENDS[name].prepare(model, images, precision, where)


def as_test_step(model: Any, run: LogitsRun) -> Callable[[dict[str, Any]], list[Any]]:
    """In place of ``model.test_step`` or ``model.val_step``: the same results, run by a backend.

    Args:
        model: the classifier; its ``data_preprocessor`` makes the batch ready, and its own head
            makes predictions of logits.
        run: of :func:`prepare_classifier`; a batch must become images of the shape that it takes.

    Returns:
        batch of mmpretrain's data loader -> its data samples, with ``pred_score``.
    """
    head = copy.copy(model.head)
    head.forward = lambda logits: logits

    def step(batch: dict[str, Any]) -> list[Any]:
        data = model.data_preprocessor(batch, False)
        with torch.no_grad():
            samples: list[Any] = head.predict(run(data["inputs"]), data.get("data_samples"))
        return samples

    return step


def write_classifier(
    form: Format[LogitsRun], model: Any, shape: tuple[int, ...], target: Path
) -> Checked:
    """See :func:`sparsevit.tasks.logits.write_compared`.

    Raises:
        UserError: the files differ, or the file cannot be written.
    """
    _require_head(model)
    return write_compared(form, model, shape, target, prepare_classifier)


def described(classes: list[str] | None, model: Any) -> dict[str, Any]:
    """What is more to be known of a classifier's file than of a backbone's: plain data."""
    return {
        "classes": classes,
        "num_classes": getattr(model.head, "num_classes", None),
    }


def _require_head(model: Any) -> None:
    if model.head is None:
        raise UserError(
            "The classifier has no head, and so gives no logits.",
            "Use --scope backbone, or set model.head in the config.",
        )
