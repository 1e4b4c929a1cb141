"""A detector whose backbone is executed by a backend, the rest by eager PyTorch."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from sparsevit.latency.backends.base import Run
from sparsevit.latency.backends.registry import prepare, require_backend
from sparsevit.sparsity.handle import SparseModule

KEPT = 8
"""What is prepared holds a copy of the weights; images padded to more sizes than this are rare."""

Key = tuple[tuple[tuple[str, float], ...], tuple[int, ...]]


class StandIn(nn.Module):
    """Stands where a detector's backbone stands, and has a backend execute it.

    For every sparsity and shape of images it meets it has the backbone prepared, and keeps the
    ones that were used last. It has no parameters: the backbone stays whose it was.

    Args:
        backbone: on ``device``; whatever sparsity it is set to when images come is the one run.
        backend: one of :data:`sparsevit.latency.backends.BACKENDS`.
        precision: ``fp32``, ``fp16`` or ``bf16``; feature maps come back as fp32.
        device: where the backbone is.
        on_prepare: is told the shape of images before the backbone is prepared for it.
        keep: how many preparations are kept.

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
        on_prepare: Callable[[torch.Size], None] | None = None,
        keep: int = KEPT,
    ) -> None:
        super().__init__()
        require_backend(backend, precision, device)
        # in a tuple, so that it is no submodule: a handle would find its knobs a second time
        self._hidden = (backbone,)
        self._backend = backend
        self._precision = precision
        self._device = device
        self._on_prepare = on_prepare
        self._keep = keep
        self._runs: OrderedDict[Key, Run] = OrderedDict()
        self.prepared = 0

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) normalised images to feature maps, as the backbone's own forward."""
        maps = self._run_for(images)(images)
        return tuple(one.to(images.device, torch.float32) for one in maps)

    def _run_for(self, images: Tensor) -> Run:
        (backbone,) = self._hidden
        knobs = backbone.get_sparsity() if isinstance(backbone, SparseModule) else {}
        key = (tuple(sorted(knobs.items())), tuple(images.shape))
        if key in self._runs:
            self._runs.move_to_end(key)
            return self._runs[key]
        if self._on_prepare is not None:
            self._on_prepare(images.shape)
        while len(self._runs) >= self._keep:
            self._runs.popitem(last=False)
        run = prepare(self._backend, backbone, images, self._precision, self._device)
        self._runs[key] = run
        self.prepared += 1
        return run


@contextlib.contextmanager
def backbone_in(
    model: nn.Module,
    backend: str,
    precision: str,
    device: torch.device,
    *,
    on_prepare: Callable[[torch.Size], None] | None = None,
) -> Iterator[None]:
    """Within this context the backbone of ``model`` is executed by a backend.

    Args:
        model: a detector with a ``backbone``; it is itself again afterwards.
        backend, precision, device, on_prepare: see :class:`StandIn`.

    Raises:
        UserError: the backend cannot be had here.
    """
    backbone = model.get_submodule("backbone")
    stand_in = StandIn(backbone, backend, precision, device, on_prepare=on_prepare)
    was_training = backbone.training
    model.add_module("backbone", stand_in)
    try:
        yield
    finally:
        model.add_module("backbone", backbone.train(was_training))
