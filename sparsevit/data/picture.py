"""Draws images of a dataset with their boxes and masks, coloured by class."""

from __future__ import annotations

import io
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from pycocotools import mask as mask_api

from sparsevit.atomic import write_atomic
from sparsevit.data.coco import load_json
from sparsevit.data.images import decoded
from sparsevit.errors import UserError

_PANEL_INCHES = 2.4
_LEGEND_INCHES = 0.35
_DPI = 150
# Sides of the picture, in pixels; of an image in it; and how oblong a place for one is.
_MOST_PIXELS, _MOST_SHOWN, _MOST_OBLONG = 16_000, 1024, 3.0


def draw_annotations(annotation_file: Path, images: Path, out: Path, count: int) -> int:
    """Writes one picture of the first ``count`` images, in a grid with a legend of classes.

    Args:
        annotation_file: a COCO file that :func:`sparsevit.data.coco.check_annotations` accepts.
        images: folder of its images, which can be read.
        out: picture to write, by its suffix (PNG, PDF, SVG, ...).
        count: how many images; all if there are fewer.

    Returns:
        How many images are in the picture.

    Raises:
        UserError: an image cannot be decoded.
        OSError: the picture cannot be written.
    """
    content = load_json(annotation_file)
    chosen = content["images"][:count]
    by_image = defaultdict(list)
    for annotation in content["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    colours = _class_colours(content["categories"])
    columns = math.ceil(math.sqrt(len(chosen) * 2))
    columns = min(columns, len(chosen))
    rows = math.ceil(len(chosen) / columns)
    aspect = chosen[0]["height"] / chosen[0]["width"]
    aspect = min(max(aspect, 1 / _MOST_OBLONG), _MOST_OBLONG)
    height = rows * _PANEL_INCHES * aspect + _LEGEND_INCHES
    dpi = min(_DPI, _MOST_PIXELS / max(columns * _PANEL_INCHES, height))
    figure = Figure(figsize=(columns * _PANEL_INCHES, height), dpi=dpi)
    FigureCanvasAgg(figure)
    bottom = _LEGEND_INCHES / height
    figure.subplots_adjust(0.004, bottom, 0.996, 0.996, wspace=0.03, hspace=0.03)
    for place, image in enumerate(chosen):
        axes = figure.add_subplot(rows, columns, place + 1)
        _draw_image(axes, images / image["file_name"], by_image[image["id"]], colours)
    named = content["categories"][:20]
    handles = [Patch(color=colours[c["id"]], label=_label(c["name"])) for c in named]
    legend = figure.legend(
        handles=handles, loc="lower center", ncols=len(handles), frameon=False, fontsize=8
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    picture = io.BytesIO()
    figure.savefig(picture, format=out.suffix[1:].lower())
    write_atomic(out, picture.getvalue(), durable=False)
    return len(chosen)


def _label(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"


def _class_colours(categories: list[dict[str, Any]]) -> dict[int, tuple[float, float, float]]:
    palette = matplotlib.colormaps["tab10" if len(categories) <= 10 else "tab20"]
    return {c["id"]: to_rgb(palette(i % palette.N)) for i, c in enumerate(categories)}


def _draw_image(
    axes: Axes, path: Path, annotations: list[dict[str, Any]], colours: dict[int, Any]
) -> None:
    pixels = decoded(path)
    if pixels is None:
        raise UserError(f"{path} is not an image that can be read.", "Replace it, or remove it.")
    height, width = pixels.shape[:2]
    scale = min(1.0, _MOST_SHOWN / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    shown = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    shown = shown[:, :, ::-1].astype(np.float32) / 255
    for annotation in annotations:
        if annotation.get("segmentation"):
            colour = np.array(colours[annotation["category_id"]], np.float32)
            mask = _decode(annotation["segmentation"], height, width)
            mask = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST).astype(bool)
            shown[mask] = 0.5 * shown[mask] + 0.5 * colour
    # boxes are in pixels of the file
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    axes.imshow(shown, interpolation="nearest", extent=extent)
    axes.set_axis_off()
    for annotation in annotations:
        x, y, width, height = annotation["bbox"]
        edge = colours[annotation["category_id"]]
        axes.add_patch(
            Rectangle((x - 0.5, y - 0.5), width, height, fill=False, edgecolor=edge, lw=1.1)
        )


def _decode(segmentation: Any, height: int, width: int) -> np.ndarray:
    """A COCO segmentation (polygons, RLE of either form) as (height, width) uint8, 0 or 1."""
    if isinstance(segmentation, list):
        rle = mask_api.merge(mask_api.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        rle = mask_api.frPyObjects(segmentation, height, width)
    else:
        rle = segmentation
    return mask_api.decode(rle)
