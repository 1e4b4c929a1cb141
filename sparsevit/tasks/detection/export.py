"""Writes a whole detector, and compares it with eager mmdet before its file gets its name."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from sparsevit.errors import UserError
from sparsevit.latency.backends.artefacts import Checked, Format, differs, moved, staged
from sparsevit.latency.backends.export_check import ATTEMPTS
from sparsevit.latency.backends.graph import CPU
from sparsevit.tasks.detection.backends import DetectorRun, prepare_detector
from sparsevit.tasks.detection.detections import Agreement, agreement
from sparsevit.tasks.detection.graph import SIZES
from sparsevit.tasks.detection.two_stage import output_shapes, require_two_stage
from sparsevit.tasks.pictures import pictures

LARGEST_DIFFERENCES = {"boxes": 0.1, "scores": 1e-3, "masks": 1e-2}
"""As much may detections differ: boxes in pixels, scores and mask probabilities."""

DETECTIONS_TO_COMPARE = 20


def write_detector(
    form: Format[DetectorRun], model: Any, shape: tuple[int, ...], target: Path
) -> Checked:
    """Write a whole detector, and keep the file if it finds what eager mmdet finds.

    They are compared on drawn pictures. Where the detector finds nothing in them that scores high
    enough, a second file with a lower threshold is written and compared in its place, so that no
    file passes without detections.

    Raises:
        UserError: they differ, the detector is of a kind that is not known, or the file cannot be
            written.
    """
    require_two_stage(model)
    with staged(target) as folder:
        eager = prepare_detector("eager", model, pictures(model, shape, 0))
        written = form.write(model, pictures(model, shape, 0), folder / target.name)
        found = _agreement(form.load(written, "fp32", CPU), eager, model, shape)
        threshold = None
        if found.compared == 0 and found.unmatched == 0:
            with _lower_threshold(model, eager, shape) as threshold, _other(folder) as second:
                lower = form.write(model, pictures(model, shape, 0), second / target.name)
                found = _agreement(form.load(lower, "fp32", CPU), eager, model, shape)
        if found.compared == 0 and found.unmatched == 0:
            raise UserError(
                "The detector finds nothing in any picture, whatever the score threshold is.",
                "Check that the checkpoint comes from a trained detector.",
            )
        if not _close(found):
            raise differs(form.name, _said(found))
        files = moved(folder, written, target)
    shapes = output_shapes(model, shape[0])
    return Checked(files, found.differences(), shapes, found.compared, threshold)


def described(classes: list[str] | None, model: Any, batch_size: int) -> dict[str, Any]:
    """What is more to be known of a detector's file than of a backbone's: plain data."""
    roi = model.roi_head
    return {
        "sizes": {
            "name": SIZES,
            "shape": [batch_size, 2],
            "dtype": "float32",
            "what": "height and width of each image without padding at its bottom and right",
        },
        "classes": classes,
        "num_classes": roi.bbox_head.num_classes,
        "test_cfg": json.loads(json.dumps({"rpn": model.rpn_head.test_cfg, "rcnn": roi.test_cfg})),
        "empty": {"score": 0, "label": -1},
    }


@contextmanager
def _other(folder: Path) -> Iterator[Path]:
    """A folder for what is only compared; within the first one, it would be moved with it."""
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}-", dir=folder.parent) as other:
        yield Path(other)


def _agreement(
    run: DetectorRun, eager: DetectorRun, model: Any, shape: tuple[int, ...]
) -> Agreement:
    """On pictures of which the lower half is padding in every second attempt.

    Scores may be so nearly the same, as those of windows, that rounding decides which of two boxes
    suppresses the other. Then detections are without a match, and other pictures are tried.
    """
    for attempt in range(ATTEMPTS):
        images = pictures(model, shape, attempt + 1)
        sizes = torch.tensor([shape[-2:]] * shape[0], dtype=torch.float32)
        if attempt % 2:
            sizes[:, 0] = shape[-2] // 2
            images[:, :, shape[-2] // 2 :] = 0
        found = agreement(run(images, sizes), eager(images, sizes))
        if _close(found):
            break
    return found


def _close(found: Agreement) -> bool:
    within = all(
        found.differences()[kind] <= limit
        for kind, limit in LARGEST_DIFFERENCES.items()
        if kind in found.differences()
    )
    return within and found.unmatched == 0 and found.compared > 0


def _said(found: Agreement) -> str:
    if found.unmatched:
        return f"{found.unmatched} of {found.unmatched + found.compared} detections"
    return ", ".join(f"{value:.2g} in {kind}" for kind, value in found.differences().items())


@contextmanager
def _lower_threshold(model: Any, eager: DetectorRun, shape: tuple[int, ...]) -> Iterator[float]:
    """The detector with a score threshold that leaves some detections, in between two scores."""
    cfg = model.roi_head.test_cfg
    before = cfg.score_thr
    try:
        cfg.score_thr = 0.0
        scores = torch.cat([one.scores for one in eager(pictures(model, shape, 1))])
        best = scores.sort(descending=True).values[: DETECTIONS_TO_COMPARE + 1]
        cfg.score_thr = float((best[-1] + best[-2]) / 2) if len(best) > 1 else 0.0
        yield cfg.score_thr
    finally:
        cfg.score_thr = before
