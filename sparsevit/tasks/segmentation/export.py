"""Writes a whole segmentor, and compares it with eager mmseg before its file gets its name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsevit.latency.backends.artefacts import Checked, Format, differs, moved, staged
from sparsevit.latency.backends.export_check import ATTEMPTS
from sparsevit.latency.backends.graph import CPU
from sparsevit.tasks.pictures import pictures
from sparsevit.tasks.segmentation.backends import (
    OUTPUT,
    SegmentorRun,
    crop_size,
    prepare_segmentor,
    require_encoder_decoder,
)

LARGEST_DIFFERENCE = 1e-3
"""Of logits, against the largest one; and the share of pixels that may get another class."""


@dataclass(frozen=True)
class Agreement:
    """How far the logits of the same images are apart.

    Attributes:
        logits: the largest difference, against the largest logit; infinite where one is NaN.
        classes: share of the pixels whose class differs.
    """

    logits: float
    classes: float

    def close(self) -> bool:
        """Whether a file may be kept."""
        return max(self.logits, self.classes) <= LARGEST_DIFFERENCE


def write_segmentor(
    form: Format[SegmentorRun], model: Any, shape: tuple[int, ...], target: Path
) -> Checked:
    """Write a whole segmentor, and keep the file if its logits are those of eager mmseg.

    They are compared on drawn pictures. A segmentor that slides over its images is written for one
    crop.

    Raises:
        UserError: they differ, the segmentor is of a kind that is not known, or the file cannot be
            written.
    """
    require_encoder_decoder(model)
    shape = (*shape[:2], *crop_size(model, shape[-2:]))
    with staged(target) as folder:
        images = pictures(model, shape, 0)
        eager = prepare_segmentor("eager", model, images)
        written = form.write(model, images, folder / target.name)
        found = _agreement(form.load(written, "fp32", CPU), eager, model, shape)
        if not found.close():
            raise differs(
                form.name, f"{found.logits:.2g} in logits, {found.classes:.2%} of the classes"
            )
        files = moved(folder, written, target)
    outputs = {OUTPUT: [shape[0], int(model.out_channels), *shape[-2:]]}
    return Checked(files, {"logits": found.logits, "classes": found.classes}, outputs)


def described(cfg: Any, model: Any) -> dict[str, Any]:
    """What is more to be known of a segmentor's file than of a backbone's: plain data."""
    loader = cfg.get("val_dataloader") or cfg.get("test_dataloader") or {}
    metainfo = (loader.get("dataset") or {}).get("metainfo") or {}
    classes = metainfo.get("classes") or cfg.get("classes")
    slides = model.test_cfg.get("mode", "whole") == "slide"
    return {
        "classes": list(classes) if classes else None,
        "num_classes": int(model.num_classes),
        "slide": (
            {"crop": list(model.test_cfg.crop_size), "stride": list(model.test_cfg.stride)}
            if slides
            else None
        ),
    }


def _agreement(
    run: SegmentorRun, eager: SegmentorRun, model: Any, shape: tuple[int, ...]
) -> Agreement:
    """On drawn pictures; others where rounding decides which of two windows is kept."""
    for attempt in range(ATTEMPTS):
        images = pictures(model, shape, attempt + 1)
        found = compare(run(images), eager(images))
        if found.close():
            break
    return found


def compare(logits: Tensor, expected: Tensor) -> Agreement:
    """Compare logits (B, K, H, W) of the same images."""
    if logits.shape != expected.shape:
        return Agreement(float("inf"), 1.0)
    scale = float(expected.abs().max()) or 1.0
    gap = float((logits - expected).abs().max()) / scale
    classes = (logits.argmax(1) != expected.argmax(1)).to(torch.float32).mean()
    # a NaN is no agreement
    return Agreement(gap if gap == gap else float("inf"), float(classes))
