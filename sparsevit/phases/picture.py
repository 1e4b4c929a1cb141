"""Pictures of what a model skips on an image, and of what models find there."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor

from sparsevit.atomic import write_atomic
from sparsevit.data.images import decoded
from sparsevit.engine.evaluation import Evaluation
from sparsevit.methods import methods_in
from sparsevit.tasks import Task, task_of
from sparsevit.tasks.base import LEAST_SCORE

_LEAST_SIDE = 480
_GAP = 8
_WIDE = 2.1
"""From how many times as wide as high pictures stand below each other."""


def picture_of_sparsity(cfg: Config, model: Any, out: Path, index: int = 0) -> Path | None:
    """Draw what a model skips on a validation image.

    Args:
        cfg: whose validation set is used.
        model: set to the sparsity to show.
        out: the PNG to write.
        index: which image of the validation set.

    Returns:
        ``out``, or None where the model's methods have nothing to show.
    """
    return draw_sparsity(task_of(cfg), model, Evaluation(cfg).loader.dataset[index], out)


def draw_sparsity(task: Task, model: Any, loaded: Mapping[str, Any], out: Path) -> Path | None:
    """Draw what a model skips on an image; of a sample of several views, on the first.

    Args:
        task: that the model is for.
        model: set to the sparsity to show.
        loaded: what the test pipeline gives.
        out: the PNG to write.

    Returns:
        ``out``, or None where the model's methods have nothing to show.
    """
    device = next(model.parameters()).device
    prepared = model.data_preprocessor({name: [value] for name, value in loaded.items()})
    normalised = _images(task.pixels_of(prepared["inputs"]))[:1].to(device)
    image = _images(task.pixels_of(loaded["inputs"]))[0].permute(1, 2, 0).numpy()
    if task.channels == "BGR":
        image = image[..., ::-1]
    image = np.ascontiguousarray(image)
    with torch.no_grad():
        drawn = (method.picture(normalised, image, out) for method in methods_in(model))
        return next((path for path in drawn if path is not None), None)


def _images(pixels: Tensor) -> Tensor:
    """(..., 3, H, W) -> (n, 3, H, W)."""
    return pixels.reshape(-1, *pixels.shape[-3:])


def picture_of_predictions(
    cfg: Config, models: Mapping[str, Any], out: Path, index: int = 0
) -> Path | None:
    """Draw side by side, wide ones below each other, what models find on a validation image.

    Args:
        cfg: whose validation set is used.
        models: by the names to show, each at the sparsity that it is set to.
        out: the PNG to write.
        index: which image of the validation set.

    Returns:
        ``out``, or None where the pipeline does not tell the image's file.
    """
    task, dataset = task_of(cfg), Evaluation(cfg).loader.dataset
    loaded = dataset[index]
    file = loaded["data_samples"].metainfo.get("img_path")
    if file is None:
        return None
    pixels = decoded(Path(file))[..., ::-1]
    panels = {}
    with torch.no_grad():
        for name, model in models.items():
            (found,) = model.test_step({key: [value] for key, value in loaded.items()})
            panels[name] = drawn(task, found, pixels, dataset.metainfo)
    return save(side_by_side(panels), out)


def drawn(
    task: Task, found: Any, pixels: np.ndarray, meta: Mapping[str, Any], least: float = LEAST_SCORE
) -> np.ndarray:
    """What a model found, over its image.

    Args:
        task: that the model is for.
        found: a data sample with predictions.
        pixels: (H, W, 3) uint8 RGB.
        meta: ``metainfo`` of the dataset.
        least: see :meth:`Task.draw`.

    Returns:
        (h, w, 3) uint8 RGB, the task's own size.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "drawn.png"
        task.draw(found.cpu(), np.ascontiguousarray(pixels), path, meta, least)
        return np.ascontiguousarray(decoded(path)[..., ::-1])


def side_by_side(panels: Mapping[str, np.ndarray]) -> np.ndarray:
    """Pictures with a line of text above each, wide ones below each other.

    Args:
        panels: by that text: (H, W, 3) uint8 RGB; small ones are made larger.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    from PIL import Image, ImageDraw, ImageFont

    height, width = next(iter(panels.values())).shape[:2]
    scale = max(1.0, _LEAST_SIDE / min(height, width))
    size = (round(width * scale), round(height * scale))
    font: Any = ImageFont.load_default(max(14, size[0] // 32))
    strip = 2 * int(font.size)
    below = width > _WIDE * height
    step = (0, strip + size[1] + _GAP) if below else (size[0] + _GAP, 0)
    count = len(panels) - 1
    sheet = Image.new(
        "RGB", (size[0] + count * step[0], strip + size[1] + count * step[1]), "white"
    )
    pen = ImageDraw.Draw(sheet)
    for index, (name, panel) in enumerate(panels.items()):
        left, top = index * step[0], index * step[1]
        pen.text((left + size[0] / 2, top + strip / 2), name, "#1f2933", font, anchor="mm")
        picture = Image.fromarray(panel)
        sheet.paste(picture.resize(size, Image.Resampling.LANCZOS), (left, top + strip))
    return np.asarray(sheet)


def save(pixels: np.ndarray, out: Path) -> Path:
    """Write (H, W, 3) uint8 RGB as a PNG, whole or not at all. Returns ``out``."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    write_atomic(out, buffer.getvalue())
    return out
