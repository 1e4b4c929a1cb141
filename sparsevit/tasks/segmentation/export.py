"""Writes a whole segmentor, compared with eager mmseg before its file gets its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparsevit.latency.backends.artefacts import Checked, Format
from sparsevit.tasks.logits import LogitsRun, write_compared
from sparsevit.tasks.segmentation.backends import (
    crop_size,
    prepare_segmentor,
    require_encoder_decoder,
)


def write_segmentor(
    form: Format[LogitsRun], model: Any, shape: tuple[int, ...], target: Path
) -> Checked:
    """See :func:`sparsevit.tasks.logits.write_compared`. A segmentor that slides over its images is
    written for one crop.

    Raises:
        UserError: the files differ, the segmentor is of a kind that is not known, or the file
            cannot be written.
    """
    require_encoder_decoder(model)
    shape = (*shape[:2], *crop_size(model, shape[-2:]))
    return write_compared(form, model, shape, target, prepare_segmentor)


def described(classes: list[str] | None, model: Any) -> dict[str, Any]:
    """What is more to be known of a segmentor's file than of a backbone's: plain data."""
    slides = model.test_cfg.get("mode", "whole") == "slide"
    return {
        "classes": classes,
        "num_classes": int(model.num_classes),
        "slide": (
            {"crop": list(model.test_cfg.crop_size), "stride": list(model.test_cfg.stride)}
            if slides
            else None
        ),
    }
