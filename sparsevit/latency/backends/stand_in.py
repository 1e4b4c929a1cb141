"""A model whose backbone, or whose whole inference, is executed by a backend in an evaluation."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_structure, tree_unflatten

from sparsevit.latency.backends.base import Run
from sparsevit.latency.backends.registry import prepare, require_backend, require_whole_backend
from sparsevit.sparsity.handle import sparse_parts

if TYPE_CHECKING:
    from sparsevit.tasks import Task

KEPT = 8
"""What is prepared holds a copy of the weights; images padded to more sizes than this are rare."""

Prepared = TypeVar("Prepared")
OnPrepare = Callable[[torch.Size], None]
"""Is told the shape of images before a model is prepared for it."""


class _LastUsed(Generic[Prepared]):
    """A model, prepared once for every sparsity and shape of images it meets.

    Args:
        model: its sparsity counts.
        make: prepares it for images, at the sparsity it has.
        on_prepare: see :data:`OnPrepare`.
        keep: how many are kept, those that were used last.
        pixels_of: the images among what the model is given.
    """

    def __init__(
        self,
        model: nn.Module,
        make: Callable[[Tensor], Prepared],
        on_prepare: OnPrepare | None,
        keep: int = KEPT,
        pixels_of: Callable[[Any], Tensor] = lambda images: images,
    ) -> None:
        self._pixels_of = pixels_of
        self._parts = sparse_parts(model)
        self._make, self._on_prepare, self._keep = make, on_prepare, keep
        self._made: OrderedDict[Any, Prepared] = OrderedDict()

    def run_for(self, images: Tensor) -> Prepared:
        """What runs the model as it is set now on images of this shape."""
        knobs = [(name, *part.get_sparsity().items()) for name, part in self._parts.items()]
        shape = self._pixels_of(images).shape
        key = (tuple(knobs), shape)
        if key not in self._made:
            if self._on_prepare is not None:
                self._on_prepare(shape)
            while len(self._made) >= self._keep:
                self._made.popitem(last=False)
            self._made[key] = self._make(images)
        self._made.move_to_end(key)
        return self._made[key]


class StandIn(nn.Module):
    """Stands where a model's backbone stands, and has a backend execute it.

    It has no parameters: the backbone stays whose it was.

    Args:
        backbone: on ``device``; whatever sparsity it is set to when images come is the one run.
        backend: one of :data:`sparsevit.latency.backends.BACKENDS`.
        precision: ``fp32``, ``fp16`` or ``bf16``; feature maps come back as fp32.
        device: where the backbone is.
        on_prepare: see :data:`OnPrepare`.
        keep: how many preparations are kept.
        make: gives what executes it on images, in place of the backend.

    Raises:
        UserError: the backend cannot be had here.
    """

    def __init__(
        self,
        backbone: nn.Module,
        backend: str,
        precision: str,
        device: torch.device,
        *,
        on_prepare: OnPrepare | None = None,
        keep: int = KEPT,
        make: Callable[[Tensor], Run] | None = None,
    ) -> None:
        super().__init__()
        require_backend(backend, precision, device)

        # the backbone is no submodule of this one: a handle would find its knobs a second time
        def prepared(images: Tensor) -> Run:
            return prepare(backend, backbone, images, precision, device)

        self._prepared = _LastUsed(backbone, make or prepared, on_prepare, keep)
        self._structure: TreeSpec | None = None
        self._structure_on = lambda image: tree_structure(tuple(backbone(image)))

    def forward(self, images: Tensor) -> Any:
        """(B, 3, H, W) normalised images to feature maps, as the backbone's own forward."""
        if self._structure is None:
            # a backend gives plain lists; a backbone may give two tokens for a stage
            with torch.no_grad():
                self._structure = self._structure_on(images[:1])
        maps = self._prepared.run_for(images)(images)
        return tree_unflatten(
            [one.to(images.device, torch.float32) for one in maps], self._structure
        )


@contextlib.contextmanager
def backbone_in(
    model: nn.Module,
    backend: str,
    precision: str,
    device: torch.device,
    *,
    on_prepare: OnPrepare | None = None,
    make: Callable[[Tensor], Run] | None = None,
    name: str = "backbone",
) -> Iterator[None]:
    """Within this context the backbone of ``model`` is executed by a backend.

    Args:
        model: with a backbone; it is itself again afterwards.
        backend, precision, device, on_prepare, make: see :class:`StandIn`.
        name: of the backbone in the model, dotted.

    Raises:
        UserError: the backend cannot be had here.
    """
    backbone = model.get_submodule(name)
    stand_in = StandIn(backbone, backend, precision, device, on_prepare=on_prepare, make=make)
    was_training = backbone.training
    parent, _, leaf = name.rpartition(".")
    owner = model.get_submodule(parent)
    owner.add_module(leaf, stand_in)
    try:
        yield
    finally:
        backbone.train(was_training)
        owner.add_module(leaf, backbone)


@contextlib.contextmanager
def whole_in(
    task: Task,
    model: Any,
    backend: str,
    precision: str,
    device: torch.device,
    *,
    on_prepare: OnPrepare | None = None,
    make: Callable[[Any], Any] | None = None,
) -> Iterator[None]:
    """Within this context ``model.val_step`` is executed by a backend.

    Args:
        task: that the model is for.
        model: of it, on ``device``.
        backend, precision, device, on_prepare, make: as of :class:`StandIn`.

    Raises:
        UserError: the backend cannot be had here, or not for this model.
    """
    require_whole_backend(task.whole, task.backends(), backend, precision, device)
    prepared = _LastUsed(
        model,
        make or (lambda images: task.prepare(backend, model, images, precision, device)),
        on_prepare,
        pixels_of=task.pixels_of,
    )

    def run(images: Tensor, *more: Any) -> Any:
        return prepared.run_for(images)(images, *more)

    # on the instance, so that it hides the method until it is removed
    model.val_step = task.as_step(model, run)
    try:
        yield
    finally:
        del model.val_step
