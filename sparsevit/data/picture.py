"""Draws images of a dataset with their boxes and masks, coloured by class."""

from __future__ import annotations

import errno
import io
import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
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
from sparsevit.data.coco import has_box, load_json
from sparsevit.data.images import (
    decoded,
    image_fault,
    image_size,
    read_labels,
    require_picture_name,
)
from sparsevit.data.own import OwnData
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
        UserError: an image cannot be decoded, or the picture cannot be written.
    """
    content = load_json(annotation_file)
    chosen = content["images"][:count]
    by_image = defaultdict(list)
    for annotation in content["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    colours = _class_colours(content["categories"])

    def draw(axes: Axes, place: int) -> None:
        image = chosen[place]
        _draw_image(axes, images / image["file_name"], by_image[image["id"]], colours)

    named = [(one["name"], colours[one["id"]]) for one in content["categories"]]
    _draw_sheet(len(chosen), chosen[0]["height"] / chosen[0]["width"], draw, named, out)
    return len(chosen)


def draw_own(data: OwnData, palette: Sequence[tuple[int, int, int]], out: Path, count: int) -> int:
    """Writes one picture of training images of a user's own data, spread over all of them.

    Args:
        data: whose boxes and masks, label maps, or classes are drawn.
        palette: RGB of each class, 0 to 255.
        out: picture to write, by its suffix (PNG, PDF, SVG, ...).
        count: how many images; all if there are fewer. Those that cannot be read are left out.

    Returns:
        How many images are in the picture.

    Raises:
        UserError: no image can be read, or the picture cannot be written.
    """
    require_picture_name(out)
    split = data.splits["train"]
    paths = [(name, split.images / f"{name}{data.suffixes[0]}") for name in split.names]
    paths = [(name, path) for name, path in paths if image_fault(path) is None]
    if not paths:
        raise UserError(f"No image in {split.images} can be read.", "Check the images.")
    shown = min(count, len(paths))
    chosen = [paths[i * len(paths) // shown] for i in range(shown)]
    colours = [tuple(value / 255 for value in colour) for colour in palette]
    titles = dict(zip(split.names, split.labels, strict=True)) if split.labels else {}
    notes = _notes(data) if not (data.has_label_maps or titles) else {}
    by_label = dict(enumerate(colours))

    def draw(axes: Axes, place: int) -> None:
        name, path = chosen[place]
        if not data.has_label_maps:
            _draw_image(axes, path, notes.get(name, []), by_label)
            if titles:
                _draw_class(axes, data.classes[titles[name]], by_label[titles[name]])
            return
        labels = read_labels(split.annotations / f"{name}{data.suffixes[1]}")
        _draw_labels(axes, path, labels, data.void, colours)

    width, height = image_size(chosen[0][1]) or (1, 1)
    named = list(zip(data.classes, colours, strict=True))
    _draw_sheet(len(chosen), height / width, draw, named, out)
    return len(chosen)


def _notes(data: OwnData) -> dict[str, list[dict[str, Any]]]:
    """Annotations of the classes by file name; the category is the label."""
    content = load_json(data.splits["train"].annotations)
    labels = {
        one["id"]: data.classes.index(one["name"])
        for one in content["categories"]
        if one["name"] in data.classes
    }
    names = {one["id"]: one["file_name"] for one in content["images"]}
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for note in content["annotations"]:
        if note["category_id"] in labels and has_box(note):
            mask = note.get("segmentation") if data.masks else None
            kept = {**note, "category_id": labels[note["category_id"]], "segmentation": mask}
            found[names[note["image_id"]]].append(kept)
    return found


def _draw_class(axes: Axes, name: str, colour: Any) -> None:
    box = {"facecolor": "white", "edgecolor": colour, "pad": 2.0}
    axes.text(0.04, 0.95, _label(name), fontsize=7, bbox=box, transform=axes.transAxes, va="top")


def _draw_labels(
    axes: Axes, path: Path, labels: np.ndarray | None, void: int, colours: Sequence[Any]
) -> None:
    pixels = decoded(path)
    if pixels is None:
        return
    shown = shrunk(pixels)
    if labels is not None and labels.shape == pixels.shape[:2]:
        small = cv2.resize(
            labels.astype(np.uint8), shown.shape[1::-1], interpolation=cv2.INTER_NEAREST
        )
        first = 1 if void == 0 else 0
        for label, colour in enumerate(colours, first):
            where = small == label
            shown[where] = 0.4 * shown[where] + 0.6 * np.array(colour)
    axes.imshow(np.clip(shown, 0, 1), interpolation="nearest")
    axes.set_axis_off()


def _draw_sheet(
    count: int,
    aspect: float,
    draw: Callable[[Axes, int], None],
    classes: Sequence[tuple[str, Any]],
    out: Path,
) -> None:
    """Writes a grid of images with a legend of classes.

    Raises:
        UserError: ``out`` cannot be written.
    """
    columns = min(math.ceil(math.sqrt(count * 2)), count)
    rows = math.ceil(count / columns)
    aspect = min(max(aspect, 1 / _MOST_OBLONG), _MOST_OBLONG)
    named = classes[:20]
    lines = math.ceil(len(named) / max(1, 2 * columns))
    legend_inches = _LEGEND_INCHES * (1 + 0.6 * (lines - 1))
    height = rows * _PANEL_INCHES * aspect + legend_inches
    dpi = min(_DPI, _MOST_PIXELS / max(columns * _PANEL_INCHES, height))
    figure = Figure(figsize=(columns * _PANEL_INCHES, height), dpi=dpi)
    FigureCanvasAgg(figure)
    figure.subplots_adjust(0.004, legend_inches / height, 0.996, 0.996, wspace=0.03, hspace=0.03)
    for place in range(count):
        draw(figure.add_subplot(rows, columns, place + 1), place)
    handles = [Patch(color=colour, label=_label(name)) for name, colour in named]
    legend = figure.legend(
        handles=handles,
        loc="lower center",
        ncols=math.ceil(len(handles) / lines),
        frameon=False,
        fontsize=8,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    save_picture(figure, out)


def save_picture(figure: Figure, out: Path) -> None:
    """Writes a figure by the suffix of the file.

    Raises:
        UserError: it cannot be written.
    """
    picture = io.BytesIO()
    with warnings.catch_warnings():
        # boxes stand for what the font does not have
        warnings.filterwarnings("ignore", "Glyph")
        figure.savefig(picture, format=out.suffix[1:].lower())
    try:
        if out.exists() and not out.is_file():
            raise OSError(errno.EEXIST, "it is not a regular file")
        write_atomic(out, picture.getvalue(), durable=False)
    except OSError as error:
        raise UserError(
            f"Cannot write {out}: {error.strerror}.",
            "Choose a file in a folder that you can write to.",
        ) from error


def _label(name: str) -> str:
    # halves of surrogates, which JSON can hold, and control characters: no font can draw them
    name = "".join(one if one.isprintable() else repr(one)[1:-1] for one in name)
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
    shown = shrunk(pixels)
    for annotation in annotations:
        if annotation.get("segmentation"):
            colour = np.array(colours[annotation["category_id"]], np.float32)
            mask = _decode(annotation["segmentation"], height, width)
            small = cv2.resize(mask, shown.shape[1::-1], interpolation=cv2.INTER_NEAREST)
            mask = small.astype(bool)
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


def shrunk(pixels: np.ndarray) -> np.ndarray:
    """An image in BGR as it is shown: (h, w, 3) float32 RGB, 0 to 1."""
    height, width = pixels.shape[:2]
    scale = min(1.0, _MOST_SHOWN / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    shown = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    small: np.ndarray = shown[:, :, ::-1].astype(np.float32) / 255
    return small


def _decode(segmentation: Any, height: int, width: int) -> np.ndarray:
    """A COCO segmentation (polygons, RLE of either form) as (height, width) uint8, 0 or 1."""
    if isinstance(segmentation, list):
        rle = mask_api.merge(mask_api.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        rle = mask_api.frPyObjects(segmentation, height, width)
    else:
        rle = segmentation
    return mask_api.decode(rle)
