"""Pictures of what a model skips on an image, and of what models find there."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread
from mmengine.config import Config
from torch import Tensor

from sparsevit.engine.evaluation import Evaluation
from sparsevit.methods import methods_in
from sparsevit.tasks import task_of

_PANEL_INCHES, _TITLE_INCHES, _DPI = 4.0, 0.35, 150
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
    task, loaded = task_of(cfg), Evaluation(cfg).loader.dataset[index]
    device = next(model.parameters()).device
    prepared = model.data_preprocessor({name: [value] for name, value in loaded.items()})
    # of a sample of several views, the first
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
    import mmcv

    pixels = mmcv.imread(file, channel_order="rgb")
    panels = {}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        for name, model in models.items():
            (found,) = model.test_step({key: [value] for key, value in loaded.items()})
            drawn = Path(folder) / "drawn.png"
            panels[name] = imread(task.draw(found.cpu(), pixels, drawn, dataset.metainfo))
    rows, columns = next(iter(panels.values())).shape[:2]
    wide = columns > _WIDE * rows
    width = _PANEL_INCHES * (2 if wide else 1)
    height = width * rows / columns + _TITLE_INCHES
    down, across = (len(panels), 1) if wide else (1, len(panels))
    figure = Figure((across * width, down * height), layout="compressed")
    FigureCanvasAgg(figure)
    axes = figure.subplots(down, across, squeeze=False).flat
    for ax, (name, panel) in zip(axes, panels.items(), strict=True):
        ax.imshow(panel, interpolation="antialiased")
        ax.set_title(name)
        ax.set_axis_off()
    figure.savefig(out, dpi=_DPI)
    return out
