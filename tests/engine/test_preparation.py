"""A script prepares an image as the test pipeline and the preprocessor do, or there is none."""

from __future__ import annotations

import copy

import cv2
import numpy as np
import pytest
import scripts
from PIL import Image

from sparsevit.engine.config import load_config
from sparsevit.engine.preparation import preparation
from sparsevit.tasks import task_of
from sparsevit.tasks.script import NoScript

READ, PACK = {"type": "LoadImageFromFile"}, {"type": "PackDetInputs"}
CLS_PACK = {"type": "PackInputs"}
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


@pytest.fixture(scope="module")
def detector():
    return load_config("sparsevit::demo/mask_rcnn_swin_shapes.py")


@pytest.fixture(scope="module")
def classifier():
    return load_config("sparsevit::demo/classifier_swin_shapes.py")


def with_steps(cfg, *steps, **preprocessor):
    cfg = copy.deepcopy(cfg)
    for split in ("test", "val"):
        cfg[f"{split}_dataloader"].dataset.pipeline = list(steps)
    cfg.model.data_preprocessor.update(preprocessor)
    return cfg


def given(height, width, channels="RGB"):
    return {"shape": [1, 3, height, width], "mean": MEAN, "std": STD, "channels": channels}


def by_script(cfg, of, image, crops=False):
    """What the part of a script makes of an image file."""
    part = preparation(cfg, of, 1, crops)
    names = {"np": np, "cv2": cv2, "Image": Image, **part.constants}
    exec(part.code, names)
    pixels, place = names["prepare"](cv2.imread(str(image)))
    assert pixels.dtype == np.float32
    return pixels, place


def by_pipeline(cfg, image):
    """What the pipeline and the preprocessor make of it."""

    class Model:
        data_preprocessor = task_of(cfg).build(copy.deepcopy(cfg.model.data_preprocessor))

    return scripts.prepared(cfg, Model, image)["inputs"][0].numpy()


@pytest.fixture
def image(tmp_path):
    def made(width, height):
        pixels = np.random.default_rng(width).integers(0, 256, (height // 4, width // 4, 3))
        pixels = cv2.resize(pixels.astype(np.uint8), (width, height))
        path = tmp_path / f"{width}x{height}.png"
        cv2.imwrite(str(path), pixels)
        return path

    return made


@pytest.mark.parametrize(
    ("step", "size", "more"),
    [
        ({"scale": (96, 64), "keep_ratio": True}, (120, 70), {}),
        ({"scale": (96, 64), "keep_ratio": True}, (70, 120), {}),
        ({"scale": (100, 60), "keep_ratio": True}, (333, 190), {}),
        ({"scale": (100, 60), "keep_ratio": True}, (333, 190), {"pad_value": 0.5}),
        ({"scale": (96, 64), "keep_ratio": False}, (70, 120), {}),
        ({"scale": (100, 60), "keep_ratio": False}, (120, 70), {}),
        ({"scale": (96, 64), "keep_ratio": True, "interpolation": "area"}, (220, 141), {}),
        ({"scale": (96, 64), "keep_ratio": True, "backend": "pillow"}, (220, 141), {}),
        ({"scale": 64, "keep_ratio": True}, (50, 33), {"bgr_to_rgb": False}),
    ],
    ids=lambda value: str(value),
)
def test_an_image_is_resized_and_padded_as_mmdet_does(detector, image, step, size, more):
    cfg = with_steps(detector, READ, {"type": "Resize", **step}, PACK, **more)
    path = image(*size)
    expected = by_pipeline(cfg, path)
    channels = "RGB" if more.get("bgr_to_rgb", True) else "BGR"
    found, (width, height) = by_script(cfg, given(*expected.shape[-2:], channels), path)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    content = found[:, :height, :width]
    assert content.shape[1:] == (height, width)
    assert np.ptp(content[:, -1]) > 0
    assert np.ptp(content[:, :, -1]) > 0


def test_without_a_mean_pixels_stay_as_they_are(detector, image):
    resize = {"type": "Resize", "scale": (64, 64), "keep_ratio": True}
    cfg = with_steps(detector, READ, resize, PACK, mean=None, std=None)
    path = image(40, 64)
    found, _ = by_script(cfg, {**given(64, 64), "mean": None, "std": None}, path)
    np.testing.assert_allclose(found, by_pipeline(cfg, path))


@pytest.mark.parametrize("size", [(64, 64), (120, 70), (70, 121), (31, 99)])
@pytest.mark.parametrize(
    "resize",
    [
        {"type": "Resize", "scale": (64, 64), "keep_ratio": False},
        {"type": "ResizeEdge", "scale": 64},
        {"type": "ResizeEdge", "scale": 73, "backend": "pillow", "interpolation": "bicubic"},
    ],
    ids=["resize", "edge", "pillow"],
)
def test_an_image_is_resized_and_cropped_as_mmpretrain_does(classifier, image, resize, size):
    crop = [{"type": "CenterCrop", "crop_size": 64}] if resize["type"] == "ResizeEdge" else []
    cfg = with_steps(classifier, READ, resize, *crop, CLS_PACK)
    path = image(*size)
    found, _ = by_script(cfg, given(64, 64), path, crops=True)
    np.testing.assert_allclose(found, by_pipeline(cfg, path), atol=1e-5)


def test_an_image_smaller_or_larger_than_the_pipelines_fits_in_the_file(detector, image):
    resize = {"type": "Resize", "scale": (1333, 800), "keep_ratio": True}
    cfg = with_steps(detector, READ, resize, PACK)
    # of a file for another size than the pipeline's, and of an image that stands upright
    assert by_script(cfg, given(64, 96), image(50, 200))[1] == (16, 64)
    assert by_script(cfg, given(64, 96), image(400, 4))[1] == (96, 1)
    # 1333 wide, and padded to 1344 by the preprocessor
    assert preparation(cfg, given(800, 1344), 1, False).constants["FIT"] == (1333, 800)
    assert preparation(cfg, given(1344, 800), 1, False).constants["FIT"] == (800, 1333)


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ((), "no test pipeline"),
        ((READ, PACK), "no step that resizes"),
        ((READ, {"type": "mmdet.RandomFlip", "prob": 0.0}, PACK), "begins with RandomFlip"),
        (
            (READ, {"type": "Resize", "scale": (64, 64)}, {"type": "Pad", "size": (64, 64)}),
            "has Pad after it resizes",
        ),
        ((READ, {"type": "Resize", "scale_factor": 2.0}, PACK), "begins with Resize"),
        (({**READ, "color_type": "grayscale"}, PACK), "loads images as grayscale"),
        (
            (READ, {"type": "Resize", "scale": (64, 64), "interpolation": "hamming"}),
            "resizes by cv2, hamming",
        ),
        (
            (READ, {"type": "ResizeEdge", "scale": 64}, {"type": "CenterCrop", "crop_size": 32}),
            "crops to 32x32, and the file takes 64x64",
        ),
        (
            (READ, {"type": "ResizeEdge", "scale": 32}, {"type": "CenterCrop", "crop_size": 64}),
            "crops to 64x64",
        ),
        ((READ, {"type": "ResizeEdge", "scale": 64}, PACK), "begins with ResizeEdge"),
    ],
)
def test_a_pipeline_that_does_something_else_is_named(classifier, steps, says):
    with pytest.raises(NoScript, match=says):
        preparation(with_steps(classifier, *steps), given(64, 64), 1, True)


def test_where_places_count_nothing_is_cropped(classifier):
    crop = {"type": "CenterCrop", "crop_size": 64}
    cfg = with_steps(classifier, READ, {"type": "ResizeEdge", "scale": 64}, crop)
    with pytest.raises(NoScript, match="CenterCrop"):
        preparation(cfg, given(64, 64), 1, False)
