"""Which keys a query keeps, by layer and head, as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from sparsevit.methods.windows.picture import INK, OUTLINE, dim_skipped, save_png

LAYERS, HEADS = 4, 4
"""Panels at most, down and across; of more layers some are shown, evenly spread."""

_PANEL_INCHES = 2.4


def draw_kept_keys(
    pixels: np.ndarray, masks: Mapping[str, Tensor], out: Path, query: int | None = None
) -> Path:
    """Draw the image once for each layer and head, with the patches dimmed that a query leaves out.

    Args:
        pixels: (H, W, 3) uint8, RGB.
        masks: layer -> (heads, N, N) bool, which keys (last) each query attends to, the class token
            first.
        out: the PNG to write; its folder is made.
        query: number of a patch, counted from 0, row by row; the middle one where None.

    Returns:
        ``out``.
    """
    return save_png(kept_keys_figure(pixels, masks, query), out)


def kept_keys_figure(
    pixels: np.ndarray, masks: Mapping[str, Tensor], query: int | None = None
) -> Figure:
    """The figure of :func:`draw_kept_keys`: axes layer by layer, on the Agg canvas."""
    height, width = pixels.shape[:2]
    names = list(masks)
    shown = [names[round(i)] for i in np.linspace(0, len(names) - 1, min(LAYERS, len(names)))]
    heads = min(HEADS, len(masks[names[0]]))
    patches = masks[names[0]].shape[-1] - 1
    side = math.sqrt(height * width / patches)
    rows, columns = round(height / side), round(width / side)
    if query is None:
        query = rows // 2 * columns + columns // 2
    size = (heads * _PANEL_INCHES, len(shown) * (_PANEL_INCHES * height / width + 0.3))
    figure = Figure(figsize=size, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    for row, name in enumerate(shown):
        for head in range(heads):
            kept = masks[name][head, 1 + query, 1:].cpu().numpy().reshape(rows, columns)
            ax = figure.add_subplot(len(shown), heads, row * heads + head + 1)
            ax.imshow(dim_skipped(pixels, kept, round(side)))
            y, x = divmod(query, columns)
            ax.add_patch(
                Rectangle((x * side, y * side), side, side, fill=False, edgecolor=OUTLINE, lw=2)
            )
            title = f"{name}, head {head}: {kept.mean():.0%} kept"
            ax.set_title(title, fontsize=8, color=INK)
            ax.set_axis_off()
    return figure
