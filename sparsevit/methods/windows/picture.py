"""Which windows a sparse backbone keeps on an image, as a picture."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from sparsevit.atomic import write_atomic

OUTLINE = "#ffd23f"
PADDED = "#6ec6ff"
GRID = (1.0, 1.0, 1.0, 0.28)
INK = "#1f2933"
FAINT = "#61707f"

MAX_COLUMNS = 4
_PANEL_INCHES = 3.4
_TITLE_INCHES = 0.56
_GAP_INCHES = 0.1
_DPI = 150
_DIMMED = 0.38
_GREYED = 0.75


def kept_windows(
    part: Any, call: Callable[[Tensor], Any], images: Tensor, prefix: str = "backbone"
) -> dict[str, tuple[np.ndarray, int]]:
    """What each knob keeps of the first image, in the plain partition.

    Args:
        part: of a model, with windows to skip; it records its selections.
        call: runs the part on the images.
        images: (B, 3, H, W), normalised.
        prefix: name of the part in its model, for the names of its knobs.

    Returns:
        knob name -> ((nH, nW) bool, True where kept; side of a window in pixels).
    """
    with part.record_selections() as selections:
        call(images)
    groups = part.sparsity_space().prefixed(prefix).groups.values()
    names = [[knob.name for knob in group for _ in range(knob.layers)] for group in groups]
    found = {}
    for chosen in selections:
        if chosen.shift:
            continue
        of_first = chosen.kept_of(0)
        kept = np.full(math.prod(chosen.grid), of_first is None)
        if of_first is not None:
            kept[of_first.cpu().numpy()] = True
        stride = round(images.shape[-2] / chosen.layout.height)
        side = chosen.layout.window[0] * stride
        found[names[chosen.stage][chosen.block]] = (kept.reshape(chosen.grid), side)
    return found


def draw_kept_windows(
    image: np.ndarray, kept: Mapping[str, np.ndarray], window_px: Mapping[str, int], out: Path
) -> Path:
    """Draw, for each stage, the image with skipped windows dimmed and kept ones outlined.

    Windows that reach over the image's edge hold padding, which scores nothing; they are dotted,
    and a note says how many of them are kept.

    Args:
        image: (H, W, 3) uint8, RGB.
        kept: stage or knob name -> (nH, nW) bool, True where the window is kept. A panel each, in
            this order.
        window_px: the same names -> side of a window in pixels of the image (window x stride). The
            windows cover the image from its top left; those at the end may reach over its edge.
        out: the PNG to write; its folder is made.

    Returns:
        ``out``.

    Raises:
        ValueError: an array has another shape or type, or the windows do not cover the image.
    """
    return save_png(kept_windows_figure(image, kept, window_px), Path(out))


def save_png(figure: Figure, out: Path) -> Path:
    """Write a figure once it is drawn; its folder is made. Returns ``out``."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, buffer.getvalue())
    return out


def kept_windows_figure(
    image: np.ndarray, kept: Mapping[str, np.ndarray], window_px: Mapping[str, int]
) -> Figure:
    """The figure of :func:`draw_kept_windows`: axes in the order of ``kept``, on the Agg canvas."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image is {image.dtype} {image.shape}, not uint8 (H, W, 3)")
    if not kept:
        raise ValueError("there is no stage to draw")
    for name, keep in kept.items():
        _check(image, name, keep, window_px)

    rows = math.ceil(len(kept) / MAX_COLUMNS)
    columns = math.ceil(len(kept) / rows)
    # laid out by hand: the picture fills its cell whatever its proportions, titles have their strip
    picture = _PANEL_INCHES * image.shape[0] / image.shape[1]
    cell = (_PANEL_INCHES + _GAP_INCHES, picture + _TITLE_INCHES)
    size = (columns * cell[0] + _GAP_INCHES, rows * cell[1] + _GAP_INCHES)
    figure = Figure(figsize=size, facecolor="white")
    FigureCanvasAgg(figure)
    for index, (name, keep) in enumerate(kept.items()):
        row, column = divmod(index, columns)
        left = (_GAP_INCHES + column * cell[0]) / size[0]
        bottom = 1 - (row + 1) * cell[1] / size[1]
        ax = figure.add_axes((left, bottom, _PANEL_INCHES / size[0], picture / size[1]))
        _draw_panel(ax, image, keep, window_px[name])
        _title(ax, name, keep)
        padded = with_padding(keep.shape, image.shape[:2], window_px[name])
        _mark_padding(ax, keep, padded, window_px[name])
    return figure


def dim_skipped(image: np.ndarray, keep: np.ndarray, window_px: int) -> np.ndarray:
    """``image`` (H, W, 3) uint8 with the pixels of skipped windows dark and nearly grey."""
    height, width = image.shape[:2]
    mask = np.repeat(np.repeat(keep, window_px, axis=0), window_px, axis=1)[:height, :width]
    grey = image.mean(axis=2, keepdims=True)
    dimmed = _DIMMED * ((1 - _GREYED) * image + _GREYED * grey)
    return np.where(mask[..., None], image, dimmed).astype(np.uint8)


def with_padding(grid: tuple[int, int], size: tuple[int, int], window_px: int) -> np.ndarray:
    """Which windows reach over the edge of an image, and so hold padding.

    Args:
        grid: (nH, nW) windows.
        size: (height, width) of the image in pixels.
        window_px: side of a window in pixels of the image.

    Returns:
        (nH, nW) bool.
    """
    rows, columns = (
        window_px * (np.arange(count) + 1) > side for count, side in zip(grid, size, strict=True)
    )
    return rows[:, None] | columns[None, :]


def outlines(keep: np.ndarray, window_px: int) -> np.ndarray:
    """The edges between kept windows and all else: (n, 2, 2) as (start, end) x (x, y), pixels."""
    padded = np.pad(keep.astype(np.int8), 1)
    row, column = np.nonzero(np.diff(padded, axis=0)[:, 1:-1])
    horizontal = np.stack([column, row, column + 1, row], axis=1)
    row, column = np.nonzero(np.diff(padded, axis=1)[1:-1])
    vertical = np.stack([column, row, column, row + 1], axis=1)
    return window_px * np.concatenate([horizontal, vertical]).reshape(-1, 2, 2)


def _draw_panel(ax: Axes, image: np.ndarray, keep: np.ndarray, window_px: int) -> None:
    height, width = image.shape[:2]
    # pixel edges, not centres, at whole numbers: a window's outline is then its own edge
    extent = (0.0, float(width), float(height), 0.0)
    ax.imshow(dim_skipped(image, keep, window_px), extent=extent, interpolation="antialiased")
    row, column = np.nonzero(keep)
    corner = np.stack([column, row], axis=1)[:, None, :]
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]])[None]
    bounds = np.array([width, height])
    grid = np.minimum(window_px * (corner + square), bounds)
    edge = np.minimum(outlines(keep, window_px), bounds)
    ax.add_collection(LineCollection(list(grid), colors=[GRID], linewidths=0.4))
    ax.add_collection(LineCollection(list(edge), colors=OUTLINE, linewidths=1.3, capstyle="round"))
    margin = 0.004 * max(height, width)
    ax.set_xlim(-margin, width + margin)
    ax.set_ylim(height + margin, -margin)
    ax.set_axis_off()


def _mark_padding(ax: Axes, keep: np.ndarray, padded: np.ndarray, window_px: int) -> None:
    """Dots around windows with padding, and how many of them are kept."""
    if not padded.any():
        return
    width, height = ax.images[0].get_extent()[1:3]
    for row, column in zip(*np.nonzero(padded), strict=True):
        x, y = column * window_px, row * window_px
        sides = min(window_px, width - x), min(window_px, height - y)
        ax.add_patch(Rectangle((x, y), *sides, fill=False, edgecolor=PADDED, linestyle=":"))
    ax.annotate(
        f"dotted: windows with padding, {int(keep[padded].sum())} of {int(padded.sum())} kept",
        xy=(0, 0),
        xytext=(4, 4),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=7,
        color="white",
        bbox={"facecolor": INK, "alpha": 0.7, "linewidth": 0, "pad": 1.5},
    )


def _title(ax: Axes, name: str, keep: np.ndarray) -> None:
    ratio = 1 - keep.mean()
    ax.set_title(f"{_heading(name)}: {ratio:.0%} skipped", fontsize=11, weight="bold", pad=18)
    ax.title.set_color(INK)
    ax.annotate(
        f"{name}, {int(keep.sum())} of {keep.size} windows kept",
        xy=(0.5, 1.0),
        xytext=(0, 6),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=8,
        color=FAINT,
    )


def _heading(name: str) -> str:
    """``Stage 3, pair 1`` for ``backbone.stages.2_1``: people count from 1, modules from 0."""
    found = re.search(r"stages\.(\d+)(?:_(\d+))?$", name)
    if found is None:
        return name
    pair = f", pair {found[2]}" if found[2] else ""
    return f"Stage {int(found[1]) + 1}{pair}"


def _check(image: np.ndarray, name: str, keep: np.ndarray, window_px: Mapping[str, int]) -> None:
    if keep.ndim != 2 or keep.dtype != np.bool_ or keep.size == 0:
        raise ValueError(f"kept[{name!r}] is {keep.dtype} {keep.shape}, not bool (nH, nW)")
    if name not in window_px:
        raise ValueError(f"window_px has no {name!r}")
    covered = tuple(window_px[name] * n for n in keep.shape)
    if covered[0] < image.shape[0] or covered[1] < image.shape[1]:
        raise ValueError(
            f"the windows of {name!r} cover {covered}, less than the image's {image.shape[:2]}"
        )
