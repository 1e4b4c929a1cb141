"""Whether image files can be read: by their header alone, or in whole."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sparsevit.data.coco import Fault, ImageEntry
from sparsevit.errors import UserError

_THREADS = 8
_TURNED = 0x0112  # EXIF's tag of the orientation
_ON_THEIR_SIDE = (5, 6, 7, 8)
# With what a file of a format ends, and how far from the end.
_ENDS = {"JPEG": (b"\xff\xd9", 64), "PNG": (b"IEND", 64)}

_PICTURES = (".png", ".jpg", ".jpeg", ".pdf", ".svg", ".webp")

_known: dict[tuple[Any, ...], str | None] = {}
"""What was found of a file, as long as it is the same."""


def image_faults(
    folder: Path, entries: Iterable[ImageEntry], *, whole: bool = False, turned: bool = True
) -> list[Fault]:
    """Images of a dataset that cannot be read, or have another size than it says.

    Args:
        folder: the one that file names are relative to.
        entries: the images.
        whole: decode them, rather than look at their headers and their ends.
        turned: images are turned by their EXIF orientation when they are loaded.
    """

    def look(entry: ImageEntry) -> Fault | None:
        size = (entry.width, entry.height)
        wrong = image_fault(folder / entry.file_name, size, whole=whole, turned=turned)
        return Fault(entry.id, wrong) if wrong else None

    with ThreadPoolExecutor(_THREADS) as threads:
        return [fault for fault in threads.map(look, entries) if fault is not None]


def image_fault(
    path: Path | str,
    size: tuple[int, int] | None = None,
    *,
    whole: bool = False,
    turned: bool = True,
) -> str | None:
    """Why an image file cannot be used, to follow its name in a sentence; None where it can.

    Args:
        path: the file. What is no regular file is not opened.
        size: (width, height) in pixels that it must have; None: any.
        whole: decode it.
        turned: its EXIF orientation counts for its size.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file"
    if not status.st_size:
        return "is empty"
    stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
    key = (str(path), stamp, size, whole, turned)
    if key not in _known:
        try:
            _known[key] = _look(Path(path), size, whole, turned)
        except OSError as error:
            return f"cannot be read: {error.strerror or error}"
    return _known[key]


def _look(path: Path, size: tuple[int, int] | None, whole: bool, turned: bool) -> str | None:
    header = _header(path, turned)
    if whole or header is None:
        # what Pillow does not know OpenCV may
        decoded = _decoded_size(path)
        if decoded is None:
            return "is not an image that can be read"
        header = header or (decoded, None)
    found, form = header
    if form in _ENDS and not _has_end(path, form):
        return "is cut short"
    if size is not None and found != size:
        return f"is {found[0]}x{found[1]}, and the annotation file says {size[0]}x{size[1]}"
    return None


def _header(path: Path, turned: bool) -> tuple[tuple[int, int], str | None] | None:
    """(width, height) and format from the start of a file."""
    from PIL import Image

    with open(path, "rb") as stream:
        try:
            with Image.open(stream) as image:
                width, height = image.size
                # that of a PNG may be at its end: OpenCV does not look for it
                on_side = "exif" in image.info and image.getexif().get(_TURNED) in _ON_THEIR_SIDE
                found = (height, width) if turned and on_side else (width, height)
                return found, image.format
        except Exception:  # a broken file makes Pillow raise nearly anything
            return None


def image_size(path: Path) -> tuple[int, int] | None:
    """(width, height) of an image, turned by its EXIF orientation; None where it cannot be read."""
    header = _header(path, turned=True)
    return _decoded_size(path) if header is None else header[0]


def _decoded_size(path: Path) -> tuple[int, int] | None:
    pixels = decoded(path)
    return None if pixels is None else (pixels.shape[1], pixels.shape[0])


def decoded(path: Path) -> Any:
    """(H, W, 3) uint8 BGR, turned by its EXIF orientation; None where it cannot be decoded."""
    import cv2
    import numpy as np

    try:
        content = np.frombuffer(path.read_bytes(), np.uint8)
        return cv2.imdecode(content, cv2.IMREAD_COLOR)
    except (cv2.error, MemoryError):
        return None


def require_picture_name(out: Path) -> None:
    """Refuse to draw into a file whose name ends in no form of a picture.

    Raises:
        UserError: it does.
    """
    if out.suffix.lower() not in _PICTURES:
        raise UserError(
            f"'{out}' is not a picture file.", "Give a file name that ends in .png or .pdf."
        )


def read_labels(path: Path) -> Any:
    """(H, W) labels as mmseg reads them, (H, W, C) of a picture in colour; None where unreadable.

    A PNG with a palette holds numbers of colours: those are the labels.
    """
    import numpy as np
    from PIL import Image

    try:
        if not path.is_file():
            return None
        with Image.open(path) as image:
            return np.asarray(image).squeeze()
    except Exception:  # a broken file makes Pillow raise nearly anything
        return None


def _has_end(path: Path, form: str) -> bool:
    """Whether a file goes on to its end; some programs write more behind it."""
    mark, reach = _ENDS[form]
    with open(path, "rb") as stream:
        stream.seek(-min(reach, os.fstat(stream.fileno()).st_size), os.SEEK_END)
        if mark in stream.read():
            return True
        stream.seek(0)
        content = stream.read()
    # a thumbnail in the header has an end of its own
    return mark in content[content.rfind(b"\xff\xda") + 1 :]
