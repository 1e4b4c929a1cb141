"""What is timed: the backbone or the whole detector, at an image size, batch and precision."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sparsevit.errors import UserError
from sparsevit.latency.backends import prepare, require_backend
from sparsevit.latency.backends.base import autocast
from sparsevit.latency.backends.detector import (
    as_test_step,
    prepare_detector,
    require_detector_backend,
)
from sparsevit.latency.memory import keep_freed_memory
from sparsevit.latency.timer import measure
from sparsevit.sparsity import Configuration
from sparsevit.sparsity.handle import SparsityHandle

SCOPES = ("backbone", "detector")
PAPER_BATCH = 4
PAPER_IMG_SIZE = (672, 672)


def require_execution(scope: str, backend: str, precision: str, device: torch.device) -> None:
    """Refuse what cannot be executed here, before any work is put into it.

    Args:
        scope: one of ``SCOPES``.
        backend, precision, device: see :func:`sparsevit.latency.backends.require_backend`.

    Raises:
        UserError: there is no such scope, or the backend cannot be had for it.
    """
    if scope not in SCOPES:
        raise UserError(f"There is no scope {scope!r}.", f"Take one of {', '.join(SCOPES)}.")
    if scope == "detector":
        require_detector_backend(backend, precision, device)
    else:
        require_backend(backend, precision, device)


class Subject:
    """A model and an input for it, ready to be called again and again.

    Args:
        model: a detector (with a ``backbone``) in evaluation mode.
        scope: ``backbone``, as the paper times, or ``detector``: images in, boxes and masks out.
        batch_size: images a call; 4 in the paper.
        img_size: (height, width) in pixels.
        device: where to run; the model is moved there.
        precision: ``fp32``, or ``fp16`` or ``bf16`` under autocast.
        images: (batch, 3, height, width) uint8 pixels; noise where None. How long a detector's
            second stage takes depends on how much there is to be found.

    Raises:
        UserError: the scope, precision or size cannot be had.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        scope: str = "backbone",
        batch_size: int = PAPER_BATCH,
        img_size: tuple[int, int] = PAPER_IMG_SIZE,
        device: torch.device,
        precision: str = "fp32",
        images: Tensor | None = None,
    ) -> None:
        require_execution(scope, "eager", precision, device)
        if batch_size < 1 or min(img_size) < 32:
            raise UserError(
                f"A batch of {batch_size} images of {img_size[0]}x{img_size[1]} cannot be timed.",
                "Take at least one image of at least 32x32 pixels.",
            )
        if device.type == "cpu":
            keep_freed_memory()
        self.model = model.to(device).eval()
        self.device = device
        self.scope = scope
        self.precision = precision
        if scope == "backbone":
            self._call = self._backbone(batch_size, img_size)
        else:
            self._call = self._detector(_noise(batch_size, img_size) if images is None else images)

    def __call__(self) -> Any:
        with torch.inference_mode(), autocast(self.precision, self.device):
            return self._call()

    def prepared(self, backend: str) -> Callable[[], Any]:
        """The same call, executed by a backend, at the sparsity that the model has now.

        Raises:
            UserError: the backend cannot be had, or not for this detector.
        """
        require_execution(self.scope, backend, self.precision, self.device)
        if self.scope == "detector":
            model: Any = self.model
            images = model.data_preprocessor(self._batch, False)["inputs"]
            run = prepare_detector(backend, model, images, self.precision, self.device)
            step = as_test_step(model, run)
            return lambda: step(self._batch)
        backbone, images = self.model.get_submodule("backbone"), self._images
        maps = prepare(backend, backbone, images, self.precision, self.device)
        return lambda: maps(images)

    def _backbone(self, batch_size: int, img_size: tuple[int, int]) -> Callable[[], Any]:
        generator = torch.Generator().manual_seed(0)
        # random rather than zeros: with zeros every window scores the same, and hardware that
        # notices zeros runs faster than it does on images
        images = torch.randn(batch_size, 3, *img_size, generator=generator).to(self.device)
        self._images = images
        backbone = self.model.get_submodule("backbone")
        return lambda: backbone(images)

    def _detector(self, pixels: Tensor) -> Callable[[], Any]:
        from mmdet.structures import DetDataSample

        shape = tuple(pixels.shape[-2:])
        samples = []
        for index in range(len(pixels)):
            info = {"img_id": index, "img_shape": shape, "ori_shape": shape}
            samples.append(DetDataSample(metainfo={**info, "scale_factor": (1.0, 1.0)}))
        batch = self._batch = {"inputs": list(pixels), "data_samples": samples}
        model: Any = self.model
        return lambda: model.test_step(batch)


def at(
    subject: Subject,
    handle: SparsityHandle,
    configuration: Configuration,
    backend: str = "eager",
) -> Callable[[], Any]:
    """A call of the subject at a configuration, whatever was set in between.

    Args:
        subject: what is called.
        handle: of its model.
        configuration: a ratio for every knob.
        backend: what executes it, see :mod:`sparsevit.latency.backends`.

    Raises:
        UserError: the backend cannot be had, or not for this subject.
    """
    if backend != "eager":
        handle.set(configuration)
        return subject.prepared(backend)

    def call() -> Any:
        handle.set(configuration)
        return subject()

    return call


class Timing:
    """Milliseconds of a subject at one configuration after the other, in a backend.

    What a backend is given of a configuration is dropped when it was timed.

    Args:
        subject, handle, backend: see :func:`at`.
        seconds: to spend on timing each, beside preparing it.
        on_prepared: is told, once, how many seconds the first was prepared in; not by ``eager``.
    """

    def __init__(
        self,
        subject: Subject,
        handle: SparsityHandle,
        backend: str,
        seconds: float,
        on_prepared: Callable[[float], None] | None = None,
    ) -> None:
        self._subject, self._handle = subject, handle
        self._backend, self._seconds = backend, seconds
        self._on_prepared = None if backend == "eager" else on_prepared

    def __call__(self, configuration: Configuration) -> float:
        started = time.perf_counter()
        call = at(self._subject, self._handle, configuration, self._backend)
        if self._on_prepared is not None:
            call()
            self._on_prepared(time.perf_counter() - started)
            self._on_prepared = None
        return measure(call, self._subject.device, seconds=self._seconds).mean_ms


def _noise(batch_size: int, img_size: tuple[int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch_size, 3, *img_size), generator=generator).to(torch.uint8)
