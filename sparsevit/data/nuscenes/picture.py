"""Draws samples: boxes in six images and from above."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch

from sparsevit.data.images import decoded
from sparsevit.data.nuscenes import geometry
from sparsevit.data.nuscenes.dataset import data_info
from sparsevit.data.nuscenes.names import CAMERAS, CLASSES
from sparsevit.data.nuscenes.tables import Frame
from sparsevit.data.picture import save_picture, shrunk
from sparsevit.errors import UserError

_INCHES = 2.7
"""Width of an image in the picture."""
_REACH = 51.2
"""How far the view from above goes, in metres."""
_NEAR = 0.3
_DPI = 130
_TRUTH = (0.55, 0.55, 0.55)


def draw_frames(frames: Sequence[Frame], out: Path, classes: Sequence[str] = CLASSES) -> int:
    """Writes one picture of samples with their annotated boxes, a row each.

    Args:
        frames: the samples.
        out: picture to write, by its suffix.
        classes: that are drawn.

    Returns:
        How many there are in it.

    Raises:
        UserError: an image cannot be decoded, or the picture cannot be written.
    """
    samples = []
    for frame in frames:
        info = data_info(frame, classes)
        kept = info["gt_labels_3d"] >= 0
        samples.append((info, info["gt_bboxes_3d"][kept], info["gt_labels_3d"][kept]))
    draw_samples(samples, out, classes)
    return len(samples)


def draw_samples(
    samples: Sequence[tuple[Mapping[str, Any], np.ndarray, np.ndarray]],
    out: Path,
    classes: Sequence[str] = CLASSES,
    truth: Sequence[np.ndarray] | None = None,
) -> None:
    """Writes one picture of samples with boxes, a row each: six images, and the view from above.

    Args:
        samples: ``img_paths``, ``cam2lidar`` and ``intrinsics`` of each, as a dataset's
            ``get_data_info`` or a data sample's ``metainfo`` has them, boxes (n, 9) and labels
            (n,).
        out: picture to write, by its suffix.
        classes: names of the labels.
        truth: annotated boxes (m, 9) of each, drawn in grey from above.

    Raises:
        UserError: an image cannot be decoded, or the picture cannot be written.
    """
    first = _pixels(samples[0][0]["img_paths"][0])
    height = 2 * _INCHES * first.shape[0] / first.shape[1]
    figure = Figure(figsize=(3 * _INCHES + height, len(samples) * height + 0.35), dpi=_DPI)
    FigureCanvasAgg(figure)
    rows: Any = figure.subfigures(
        len(samples) + 1, 1, height_ratios=[height] * len(samples) + [0.35]
    )
    palette = palette_of(len(classes))
    for place, (info, boxes, labels) in enumerate(samples):
        colours = [palette[label] for label in labels]
        real = np.zeros((0, 9)) if truth is None else truth[place]
        _draw_sample(rows[place], info, np.asarray(boxes), colours, real, height)
    handles = [Patch(color=c, label=n) for n, c in zip(classes, palette, strict=True)]
    figure.legend(handles=handles, loc="lower center", ncols=10, frameon=False, fontsize=8)
    save_picture(figure, out)


def palette_of(classes: int) -> list[tuple[float, float, float]]:
    """A colour for each class: RGB, 0 to 1; always the same."""
    colours = matplotlib.colormaps["tab10" if classes <= 10 else "tab20"]
    return [to_rgb(colours(i % colours.N)) for i in range(classes)]


def _draw_sample(
    part: SubFigure,
    info: Mapping[str, Any],
    boxes: np.ndarray,
    colours: Sequence[Any],
    truth: np.ndarray,
    height: float,
) -> None:
    grid = part.add_gridspec(
        *(2, 4),
        left=0.002,
        right=0.998,
        bottom=0.004,
        top=0.996,
        wspace=0.01,
        hspace=0.01,
        width_ratios=[_INCHES] * 3 + [height],
    )
    for camera in range(len(CAMERAS)):
        axes = part.add_subplot(grid[divmod(camera, 3)])
        pixels = _pixels(info["img_paths"][camera])
        rows, columns = pixels.shape[:2]
        # boxes are in pixels of the file
        axes.imshow(shrunk(pixels), extent=(0, columns, rows, 0), interpolation="nearest")
        lines, owners = box_lines(boxes, info["cam2lidar"][camera], info["intrinsics"][camera])
        shades = [colours[owner] for owner in owners]
        axes.add_collection(LineCollection(list(lines), colors=shades, linewidths=0.8))
        axes.set_xlim(0, columns)
        axes.set_ylim(rows, 0)
        axes.set_axis_off()
    _draw_from_above(part.add_subplot(grid[:, 3]), boxes, colours, truth)


def box_lines(
    boxes: np.ndarray, cam2lidar: np.ndarray, intrinsic: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The edges of boxes in an image, cut off where they come too near to the camera.

    Args:
        boxes: (n, 9) in the lidar's frame.
        cam2lidar: (4, 4).
        intrinsic: (3, 3).

    Returns:
        (k, 2, 2) ends in pixels, which may be outside of the image, and (k,) whose box each is.
    """
    ends = geometry.corners(boxes)[:, np.array(geometry.EDGES)]
    seen = ((ends - cam2lidar[:3, 3]) @ cam2lidar[:3, :3]).reshape(-1, 2, 3)
    owners = np.repeat(np.arange(len(boxes)), len(geometry.EDGES))
    kept = (seen[:, :, 2] > _NEAR).any(axis=1)
    seen, owners = seen[kept], owners[kept]
    depth = seen[:, :, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(depth < _NEAR, (_NEAR - depth) / (depth[:, ::-1] - depth), 0)[..., None]
    flat = (seen + share * (seen[:, ::-1] - seen)) @ intrinsic.T
    return flat[..., :2] / flat[..., 2:], owners


def _draw_from_above(
    axes: Axes, boxes: np.ndarray, colours: Sequence[Any], truth: np.ndarray
) -> None:
    for shown, shades in ((truth, [_TRUTH] * len(truth)), (boxes, colours)):
        corners = geometry.corners(shown)[:, :4, :2]
        ahead = [
            [box[:2], corner[:2].mean(axis=0)] for box, corner in zip(shown, corners, strict=True)
        ]
        outline = [np.concatenate([corner, corner[:1]]) for corner in corners]
        axes.add_collection(LineCollection(outline, colors=list(shades), linewidths=1.0))
        axes.add_collection(LineCollection(ahead, colors=list(shades), linewidths=1.0))
        moving = [[box[:2], box[:2] + box[7:9]] for box in shown]
        axes.add_collection(LineCollection(moving, colors=list(shades), linewidths=0.5, alpha=0.6))
    for metres in (10, 20, 30, 40, 50):
        angles = np.linspace(0, math.tau, 90)
        axes.plot(metres * np.cos(angles), metres * np.sin(angles), color="0.9", lw=0.5, zorder=0)
    axes.plot([0, -0.9, 0.9, 0], [2.2, -2, -2, 2.2], color="black", lw=0.8)
    axes.set_xlim(-_REACH, _REACH)
    axes.set_ylim(-_REACH, _REACH)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])


def _pixels(path: str) -> np.ndarray:
    pixels = decoded(Path(path))
    if pixels is None:
        raise UserError(f"{path} is not an image that can be read.", "Replace it, or remove it.")
    return np.asarray(pixels)
