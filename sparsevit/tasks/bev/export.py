"""Writes a whole BEVDet, and compares it with eager PyTorch before its file gets its name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsevit.latency.backends.artefacts import Checked, Format, differs, moved, staged
from sparsevit.latency.backends.graph import CPU
from sparsevit.tasks.bev.backends import Inputs, by_task, map_names, output_names, prepare_bevdet

LARGEST_DIFFERENCE = 1e-3
"""Of a map, against its largest value."""


def write_bevdet(form: Format[Any], model: Any, batch: dict[str, Any], target: Path) -> Checked:
    """Write a whole BEVDet, and keep the file if its maps are those of eager PyTorch.

    Args:
        form: to write.
        model: on the CPU, at the sparsity to write.
        batch: of a data loader, to compare on; its shape is the one that the file takes.
        target: file to write.

    Raises:
        UserError: they differ, or the file cannot be written.
    """
    inputs: Inputs = model.data_preprocessor(batch, False)["inputs"]
    expected = prepare_bevdet("eager", model, inputs)(inputs)
    with staged(target) as folder:
        written = form.write(model, inputs, folder / target.name)  # type: ignore[arg-type]
        found = by_task(form.load(written, "fp32", CPU)(inputs), map_names(model))
        gap = max(
            difference(one[name], other[name])
            for one, other in zip(found, expected, strict=True)
            for name in other
        )
        if not gap <= LARGEST_DIFFERENCE:
            raise differs(form.name, f"{gap:.2g} in its maps")
        files = moved(folder, written, target)
    shapes = [list(one.shape) for task in expected for one in task.values()]
    return Checked(files, {"maps": gap}, dict(zip(output_names(model), shapes, strict=True)))


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest, against the largest value; infinite where one is NaN."""
    if found.shape != expected.shape or not bool(torch.isfinite(found).all()):
        return float("inf")
    return float((found - expected).abs().max()) / (float(expected.abs().max()) or 1.0)


def described(model: Any) -> dict[str, Any]:
    """What is more to be known of a BEVDet's file than of a backbone's: plain data."""
    tasks: Sequence[Sequence[str]] = model.pts_bbox_head.class_names
    view = model.img_view_transformer
    return {
        "classes": [list(names) for names in tasks],
        "grid": {"cells": list(view.grid), "cell_m": view.dx.tolist(), "first_m": view.bx.tolist()},
    }
