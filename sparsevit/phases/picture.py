"""A picture of what a model skips on an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config

from sparsevit.engine.evaluation import Evaluation
from sparsevit.methods import methods_in


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
    loaded = Evaluation(cfg).loader.dataset[index]
    pixels = loaded["inputs"]
    device = next(model.parameters()).device
    prepared = model.data_preprocessor({name: [value] for name, value in loaded.items()})
    normalised = prepared["inputs"].to(device)
    image = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()[..., ::-1])
    with torch.no_grad():
        drawn = (method.picture(normalised, image, out) for method in methods_in(model))
        return next((path for path in drawn if path is not None), None)
