"""A detector whose whole inference is executed by a backend, as evaluation calls it."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from sparsevit.latency.backends.base import DetectorRun
from sparsevit.latency.backends.detector import (
    as_test_step,
    prepare_detector,
    require_detector_backend,
)
from sparsevit.latency.backends.stand_in import KEPT
from sparsevit.models.detections import Detections


@contextlib.contextmanager
def detector_in(
    model: Any,
    backend: str,
    precision: str,
    device: torch.device,
    *,
    on_prepare: Callable[[torch.Size], None] | None = None,
) -> Iterator[None]:
    """Within this context ``model.val_step`` is executed by a backend, at the sparsity that the
    model has when the context is entered.

    It is prepared once for each shape of images that comes; those used last are kept.

    Args:
        model: Faster R-CNN or Mask R-CNN, on ``device``.
        backend, precision, device: see
            :func:`sparsevit.latency.backends.detector.prepare_detector`.
        on_prepare: is told the shape of images before the detector is prepared for it.

    Raises:
        UserError: the backend cannot be had here, or not for this detector.
    """
    require_detector_backend(backend, precision, device)
    runs: OrderedDict[torch.Size, DetectorRun] = OrderedDict()

    def run(images: Tensor, sizes: Tensor | None = None) -> list[Detections]:
        if images.shape not in runs:
            if on_prepare is not None:
                on_prepare(images.shape)
            while len(runs) >= KEPT:
                runs.popitem(last=False)
            runs[images.shape] = prepare_detector(backend, model, images, precision, device)
        runs.move_to_end(images.shape)
        return runs[images.shape](images, sizes)

    # on the instance, so that it hides the method until it is removed
    model.val_step = as_test_step(model, run)
    try:
        yield
    finally:
        del model.val_step
