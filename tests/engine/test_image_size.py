"""The image size is what the test pipeline gives to the model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from sparsevit.engine.config import load_config
from sparsevit.engine.image_size import IMAGES, pipeline_sizes
from sparsevit.errors import UserError
from sparsevit.phases.inputs import image_size


class Notes:
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def dataset(folder: Path, sizes, name="instances.json"):
    """A COCO dataset of empty images, (width, height) each."""
    images = []
    for number, (width, height) in enumerate(sizes):
        file = f"{number}.png"
        Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(folder / file)
        images.append({"id": number, "file_name": file, "width": width, "height": height})
    document = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "circle"}]}
    (folder / name).write_text(json.dumps(document))


def config(tiny_config, folder: Path, resize, *more) -> Config:
    cfg = load_config(tiny_config)
    cfg.embedded_dataset = None
    pipeline = [
        {"type": "LoadImageFromFile"},
        {"type": "Resize", **resize},
        *more,
        {"type": "LoadAnnotations", "with_bbox": True},
        {"type": "PackDetInputs"},
    ]
    described = {
        "type": "CocoDataset",
        "data_root": str(folder),
        "ann_file": "instances.json",
        "data_prefix": {"img": ""},
        "metainfo": {"classes": ("circle",)},
        "pipeline": pipeline,
        "test_mode": True,
    }
    for split in ("val", "test"):
        cfg[f"{split}_dataloader"] = {"batch_size": 1, "dataset": described}
    return cfg


KEPT = {"scale": (512, 384), "keep_ratio": True}


def test_proportions_that_are_kept_give_what_the_images_become(tiny_config, tmp_path):
    dataset(tmp_path, [(640, 480)] * 3)
    said = Notes()
    assert image_size(config(tiny_config, tmp_path, KEPT), None, said) == (384, 512)
    assert said.notes == ["image size: 512x384 (3 images of the test set)"]


def test_the_models_padding_counts(tiny_config, tmp_path):
    dataset(tmp_path, [(640, 470)])
    assert image_size(config(tiny_config, tmp_path, KEPT)) == (384, 512)
    square = {"scale": (300, 300), "keep_ratio": True}
    assert image_size(config(tiny_config, tmp_path, square)) == (224, 320)


def test_what_the_user_asks_for_is_taken_as_it_is(tiny_config, tmp_path):
    assert image_size(config(tiny_config, tmp_path, KEPT), (96, 64)) == (96, 64)


def test_several_sizes_are_named_and_one_is_asked_for(tiny_config, tmp_path):
    # one of another size among many is found by its annotation
    dataset(tmp_path, [(640, 480)] * 30 + [(480, 640)] + [(640, 480)] * 30)
    with pytest.raises(UserError) as raised:
        image_size(config(tiny_config, tmp_path, KEPT))
    assert f"512x384 ({IMAGES - 1}), 384x512 (1)" in raised.value.problem
    assert "--img-size 512x384" in raised.value.remedy


def test_images_that_cannot_be_read_count_by_their_annotated_size(tiny_config, tmp_path):
    dataset(tmp_path, [(640, 480)] * 2)
    (tmp_path / "0.png").write_bytes(b"")
    (tmp_path / "1.png").unlink()
    assert image_size(config(tiny_config, tmp_path, KEPT)) == (384, 512)


def test_where_the_test_set_is_not_here_the_validation_set_tells(tiny_config, tmp_path):
    dataset(tmp_path, [(640, 480)])
    cfg = config(tiny_config, tmp_path, KEPT)
    cfg.test_dataloader = {
        "batch_size": 1,
        "dataset": {**cfg.test_dataloader["dataset"], "ann_file": "gone.json"},
    }
    assert pipeline_sizes(cfg).source == "1 image of the validation set"


@pytest.mark.parametrize(
    ("resize", "more", "expected"),
    [
        ({"scale": (672, 672), "keep_ratio": False}, (), (672, 672)),
        ({"scale": (672, 672), "keep_ratio": True}, (), (672, 672)),
        ({"scale": (512, 384), "keep_ratio": False}, (), (384, 512)),
        (KEPT, ({"type": "Pad", "size": (512, 512)},), (512, 512)),
    ],
)
def test_without_data_a_pipeline_may_still_have_one_size(
    tiny_config, tmp_path, resize, more, expected
):
    assert image_size(config(tiny_config, tmp_path, resize, *more)) == expected


def test_without_data_the_size_is_asked_for_where_the_pipeline_alone_cannot_tell(
    tiny_config, tmp_path
):
    with pytest.raises(UserError) as raised:
        image_size(config(tiny_config, tmp_path, KEPT))
    assert "cannot be read (FileNotFoundError" in raised.value.problem
    assert "--img-size" in raised.value.remedy


def test_an_embedded_dataset_that_is_not_made_yet_says_its_size(tiny_config):
    cfg = load_config(tiny_config)
    cfg.embedded_dataset.width, cfg.embedded_dataset.height = 640, 480
    cfg.data_root = "/nowhere/"
    for split in ("val", "test"):
        cfg[f"{split}_dataloader"].dataset.data_root = "/nowhere/"
        cfg[f"{split}_dataloader"].dataset.pipeline[1].update(KEPT)
    assert image_size(cfg) == (384, 512)


def test_datasets_in_a_dataset_are_looked_into(tiny_config, tmp_path):
    dataset(tmp_path, [(640, 480)] * 2)
    cfg = config(tiny_config, tmp_path, KEPT)
    inner = cfg.test_dataloader["dataset"]
    cfg.test_dataloader = {
        "batch_size": 1,
        "dataset": {"type": "ConcatDataset", "datasets": [inner, inner]},
    }
    assert pipeline_sizes(cfg).counts == {(384, 512): 4}
    (tmp_path / "0.png").unlink()
    assert pipeline_sizes(cfg).counts == {(384, 512): 4}
