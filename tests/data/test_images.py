"""Whether an image file can be used, from its header and its end, or in whole."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest
from PIL import Image

from sparsevit.data.images import image_fault

PIXELS = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 64, 3), np.uint8))


def written(form, image=PIXELS, **how):
    stream = io.BytesIO()
    image.save(stream, form, **how)
    return stream.getvalue()


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return written("JPEG", exif=exif)


@pytest.mark.parametrize(
    "content",
    [
        *(written(form) for form in ("PNG", "JPEG", "BMP", "TIFF", "WEBP")),
        *(written("PNG", PIXELS.convert(mode)) for mode in ("1", "L", "RGBA")),
        written("JPEG", PIXELS.convert("CMYK")),
        written("GIF", PIXELS.convert("P"), save_all=True, append_images=[PIXELS.convert("P")]),
        written("PNG", Image.fromarray(np.zeros((32, 64), np.uint16))),
        written("JPEG") + b"what a camera writes behind" * 100,
    ],
)
@pytest.mark.parametrize("whole", [False, True])
def test_an_image_of_any_kind_passes(tmp_path, content, whole):
    (tmp_path / "a").write_bytes(content)
    assert image_fault(tmp_path / "a", (64, 32), whole=whole) is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"no image", "not an image"),
        (b"%PDF-1.4 " + bytes(100), "not an image"),
        (written("PNG")[:100], "cut short"),
        (written("PNG")[:-20], "cut short"),
        (written("JPEG")[:-200], "cut short"),
        (written("PNG", PIXELS.crop((0, 0, 1, 1))), "1x1, and the annotation file says 64x32"),
        (turned(), "32x64"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, content, says):
    (tmp_path / "a").write_bytes(content)
    assert says in image_fault(tmp_path / "a", (64, 32))


def test_a_turned_image_has_its_own_size_where_it_is_not_turned(tmp_path):
    (tmp_path / "a").write_bytes(turned())
    assert image_fault(tmp_path / "a", (64, 32), turned=False) is None
    assert image_fault(tmp_path / "a", (32, 64)) is None


def test_a_body_that_is_broken_shows_when_it_is_decoded(tmp_path):
    content = bytearray(written("PNG"))
    content[100:300] = bytes(byte ^ 0x55 for byte in content[100:300])
    (tmp_path / "a").write_bytes(content)
    assert image_fault(tmp_path / "a", (64, 32)) is None
    assert "not an image" in image_fault(tmp_path / "a", (64, 32), whole=True)


def test_what_is_no_regular_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero", "."):
        assert image_fault(tmp_path / name) == "is not a regular file"
    assert "symbolic links" in image_fault(tmp_path / "loop")
    assert "No such file" in image_fault(tmp_path / "nothing")
    assert "null byte" in image_fault("a\0b")


def test_an_image_that_was_mended_is_looked_at_again(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"")
    assert image_fault(path)
    path.write_bytes(written("PNG"))
    assert image_fault(path) is None
