"""A detector's config against its data, before anything is built."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import pytest
from mmengine.config import Config

from sparsevit.data.make import make_dataset
from sparsevit.data.spec import DatasetSpec
from sparsevit.engine.datasets import check_datasets
from sparsevit.errors import UserError

CLASSES = ("circle", "triangle", "square")
LOAD = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations", "with_mask": True}]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("checks") / "shapes"
    spec = DatasetSpec(train=3, val=3, width=64, height=64, object_size=(12, 30), classes=CLASSES)
    make_dataset(root, spec)
    return root


@pytest.fixture
def root(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "shapes"))


def config(root, **changes):
    """A Mask R-CNN on the dataset at ``root``; ``changes`` by dotted key, ``__`` for the dot."""

    def loader(split):
        return {
            "dataset": {
                "type": "CocoDataset",
                "data_root": str(root),
                "ann_file": f"annotations/instances_{split}.json",
                "data_prefix": {"img": f"{split}/"},
                "metainfo": {"classes": CLASSES},
                "filter_cfg": {"filter_empty_gt": True, "min_size": 32},
                "pipeline": copy.deepcopy(LOAD),
            }
        }

    cfg = Config(
        {
            "default_scope": "mmdet",
            "model": {
                "type": "MaskRCNN",
                "rpn_head": {"type": "RPNHead", "num_classes": 1},
                "roi_head": {
                    "type": "StandardRoIHead",
                    "bbox_head": {"type": "Shared2FCBBoxHead", "num_classes": 3},
                    "mask_roi_extractor": {"type": "SingleRoIExtractor"},
                    "mask_head": {"type": "FCNMaskHead", "num_classes": 3},
                },
            },
            "train_dataloader": loader("train"),
            "val_dataloader": loader("val"),
            "val_evaluator": {
                "type": "CocoMetric",
                "metric": ["bbox", "segm"],
                "ann_file": f"{root}/annotations/instances_val.json",
            },
        }
    )
    cfg.merge_from_dict({key.replace("__", "."): value for key, value in changes.items()})
    return cfg


def edit(root, change, split="val"):
    path = root / f"annotations/instances_{split}.json"
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content))


def check(cfg, *splits, **how):
    return check_datasets(cfg, splits or ("train", "val"), **how)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "model__roi_head__mask_head__class_agnostic": True,
            "model__roi_head__mask_head__num_classes": 1,
        },
        {"val_evaluator__metric": "bbox", "model__roi_head__mask_head": None},
        {"val_dataloader__dataset__indices": 1},
        {"val_evaluator__ann_file": None},
        {
            "train_dataloader__dataset__metainfo__classes": ["square"],
            "val_dataloader__dataset__metainfo__classes": ["square"],
            "model__roi_head__bbox_head__num_classes": 1,
            "model__roi_head__mask_head__num_classes": 1,
        },
    ],
    ids=["as-it-is", "agnostic", "boxes", "some", "no-file", "some-classes"],
)
def test_a_config_that_fits_its_data_passes(root, changes):
    assert check(config(root, **changes)) == ()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model__roi_head__bbox_head__num_classes": 2}, "roi_head.bbox_head.num_classes is 2"),
        ({"model__roi_head__mask_head__num_classes": 80}, "roi_head.mask_head.num_classes is 80"),
        (
            {"model__roi_head__bbox_head": {"type": "Shared2FCBBoxHead", "_delete_": True}},
            "num_classes is 80 .its default.",
        ),
        (
            {"model__roi_head__bbox_head": [{"type": "Shared2FCBBoxHead", "num_classes": 4}]},
            "bbox_head.0.num_classes is 4",
        ),
        ({"train_dataloader__dataset__metainfo": None}, "COCO's 80 classes are assumed"),
        ({"train_dataloader__dataset__metainfo__classes": "circle"}, "not a list of names"),
        ({"train_dataloader__dataset__metainfo__classes": 5}, "not a list of names"),
        ({"train_dataloader__dataset__metainfo": "abc"}, "metainfo is 'abc'"),
        ({"train_dataloader__dataset__data_prefix": "train/"}, "data_prefix is 'train/'"),
        ({"train_dataloader__dataset__ann_file": 5}, "ann_file is 5, not a path"),
        ({"train_dataloader__dataset__filter_cfg__min_size": 100}, "leaves none of the 3 images"),
        ({"model__roi_head__mask_head": None}, "asks for masks .'segm'., and the model has no"),
        (
            {"train_dataloader__dataset__pipeline": [{"type": "LoadAnnotations"}]},
            "mask_head needs masks",
        ),
    ],
    ids=str,
)
def test_what_does_not_fit_is_named_by_its_key(root, changes, says):
    with pytest.raises(UserError, match=says) as caught:
        check(config(root, **changes))
    assert caught.value.remedy


def test_an_evaluator_of_another_split_is_refused(root):
    # in this dataset both splits have the same ids and file names
    other = f"{root}/annotations/instances_train.json"
    with pytest.raises(UserError, match=r"val_evaluator\.ann_file is not of the split"):
        check(config(root, val_evaluator__ann_file=other))
    edit(root, lambda c: [one.update(id=one["id"] + 100) for one in c["images"]], "train")
    edit(
        root,
        lambda c: [one.update(image_id=one["image_id"] + 100) for one in c["annotations"]],
        "train",
    )
    with pytest.raises(UserError, match="does not have 3 of its images"):
        check(config(root, val_evaluator__ann_file=other))


def test_an_evaluator_with_a_copy_or_more_images_is_right(root):
    copied = root / "annotations/copy.json"
    shutil.copy(root / "annotations/instances_val.json", copied)
    edit(
        root,
        lambda c: (
            c["images"].pop()
            and c.update(annotations=[one for one in c["annotations"] if one["image_id"] < 3])
        ),
    )
    assert check(config(root, val_evaluator__ann_file=str(copied))) == ()


def test_masks_that_are_not_there_are_missed_only_where_they_are_asked_for(root):
    for split in ("train", "val"):
        edit(root, lambda c: [one.pop("segmentation") for one in c["annotations"]], split)
    with pytest.raises(UserError, match="have no masks, and the pipeline of train_dataloader"):
        check(config(root))
    boxes = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations", "with_bbox": True}]
    changes = {
        "train_dataloader__dataset__pipeline": boxes,
        "val_dataloader__dataset__pipeline": boxes,
        "model__roi_head__mask_head": None,
    }
    with pytest.raises(UserError, match=r"val_evaluator\.metric asks for masks"):
        check(
            config(
                root,
                **{
                    **changes,
                    "model__roi_head__mask_head": {"type": "FCNMaskHead", "num_classes": 3},
                },
            ),
            "val",
        )
    assert check(config(root, **changes, val_evaluator__metric="bbox")) == ()


def test_categories_in_another_order_are_refused(root):
    edit(root, lambda c: c["categories"].reverse())
    with pytest.raises(UserError, match="in another order"):
        check(config(root))


def test_a_category_without_an_annotation_is_no_class_to_train(root):
    edit(root, lambda c: c["categories"].append({"id": 9, "name": "dog"}), "train")
    changes = {
        "model__roi_head__bbox_head__num_classes": 1,
        "model__roi_head__mask_head__num_classes": 1,
        "train_dataloader__dataset__metainfo__classes": ["dog"],
    }
    with pytest.raises(UserError, match=r"None of the .* annotations"):
        check(config(root, **changes), "train")


def broken(root):
    (root / "val/000000.png").write_bytes(b"")
    edit(root, lambda c: c["annotations"][-1].update(bbox=[1, 2]))
    content = (root / "train/000001.png").read_bytes()
    (root / "train/000001.png").write_bytes(content[: len(content) // 2])


def test_broken_images_are_counted_and_named(root):
    broken(root)
    with pytest.raises(UserError, match=r"1 of its 3 images .*000001\.png.*cut short") as caught:
        check(config(root))
    assert "--skip-broken" in caught.value.remedy
    with pytest.raises(UserError, match=r"2 of its 3 images"):
        check(config(root), "val")


def test_broken_images_are_left_out_by_an_option_of_data_and_metrics(root, tmp_path):
    broken(root)
    before = {path: path.read_bytes() for path in root.rglob("*.json")}
    cfg = config(root)
    said = check(cfg, copies=tmp_path / "copies")
    assert [text.count("left out") for text in said] == [1, 1]
    assert "000001.png" in said[0]
    kept = json.loads(Path(cfg.val_dataloader.dataset.ann_file).read_bytes())
    assert [one["file_name"] for one in kept["images"]] == ["000001.png"]
    assert {one["image_id"] for one in kept["annotations"]} == {2}
    assert cfg.val_evaluator.ann_file == cfg.val_dataloader.dataset.ann_file
    assert check(cfg) == ()
    assert {path: path.read_bytes() for path in root.rglob("*.json")} == before


def test_nothing_is_left_out_of_a_dataset_that_is_whole(root, tmp_path):
    cfg = config(root)
    assert check(cfg, copies=tmp_path / "copies") == ()
    assert cfg.to_dict() == config(root).to_dict()
    assert not (tmp_path / "copies").exists()


def test_a_dataset_of_broken_images_alone_is_refused(root, tmp_path):
    for path in (root / "val").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="3 of its 3 images"):
        check(config(root), copies=tmp_path / "copies")
