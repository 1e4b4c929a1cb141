"""Datasets of a config: made where they are the embedded one, and looked at before use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mmengine.config import Config, ConfigDict

from sparsevit.data.make import make_dataset
from sparsevit.data.spec import DatasetSpec
from sparsevit.engine.config import load_config
from sparsevit.engine.datasets import UnusableImage, check_datasets, provide_embedded
from sparsevit.engine.evaluation import Evaluation
from sparsevit.errors import UserError


@pytest.fixture
def cfg(tiny_config):
    return load_config(tiny_config)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("coco") / "shapes"
    make_dataset(root, DatasetSpec(train=2, val=1, width=64, height=64, object_size=(12, 30)))
    return root


def coco(root, **more):
    dataset = {
        "type": "CocoDataset",
        "data_root": str(root),
        "ann_file": "annotations/instances_train.json",
        "data_prefix": {"img": "train/"},
        "metainfo": {"classes": DatasetSpec().classes},
        **more,
    }
    return of_training(dataset)


def of_training(dataset):
    return Config({"default_scope": "mmdet", "train_dataloader": {"dataset": dataset}})


def test_the_embedded_dataset_is_made_and_every_part_points_to_it(cfg, tmp_path):
    root = provide_embedded(cfg, tmp_path)
    assert root.parent == tmp_path
    check_datasets(cfg, ("train", "val", "test"))
    for part in ("train", "val", "test"):
        assert Path(cfg[f"{part}_dataloader"].dataset.data_root) == root
    assert Path(cfg.val_evaluator.ann_file) == root / "annotations/instances_val.json"
    assert Path(cfg.val_evaluator.ann_file).is_file()


def test_a_workspace_that_was_moved_has_its_own_dataset(cfg, tmp_path):
    provide_embedded(cfg, tmp_path / "a")
    moved = provide_embedded(cfg, tmp_path / "b")
    assert Path(cfg.val_evaluator.ann_file).is_relative_to(moved)


def test_another_dataset_has_another_folder_and_the_same_is_made_once(cfg, tmp_path):
    first = provide_embedded(cfg, tmp_path)
    image = next(first.glob("train/*"))
    before = image.stat().st_mtime_ns
    assert provide_embedded(cfg, tmp_path) == first
    assert image.stat().st_mtime_ns == before
    cfg.embedded_dataset.seed = 1
    assert provide_embedded(cfg, tmp_path) != first


def test_a_config_with_data_of_its_own_is_left_alone(tmp_path):
    cfg = coco(tmp_path)
    before = cfg.to_dict()
    assert provide_embedded(cfg, tmp_path) is None
    assert cfg.to_dict() == before
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [{"colour": "red"}, {"train": 0}, {"classes": ("dog",)}])
def test_a_wrong_description_is_refused(cfg, tmp_path, wrong):
    cfg.embedded_dataset = ConfigDict(wrong)
    with pytest.raises(UserError):
        provide_embedded(cfg, tmp_path)


def test_annotations_that_hold_nothing_are_refused(made, tmp_path):
    for key in ("images", "annotations", "categories"):
        content = json.loads((made / "annotations/instances_train.json").read_bytes())
        content[key] = []
        path = tmp_path / f"no_{key}.json"
        path.write_text(json.dumps(content))
        with pytest.raises(UserError, match=f"no {key}"):
            check_datasets(coco(made, ann_file=str(path)), ("train",))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"ann_file": "annotations/none.json"}, "none.json"),
        ({"data_prefix": {"img": "nowhere/"}}, "nowhere"),
        ({"data_prefix": {"img": "val/"}}, "images looked up"),
        ({"metainfo": {"classes": ("dog",)}}, "classes of the config are not in"),
    ],
)
def test_what_a_run_would_stumble_over_is_named(made, wrong, says):
    with pytest.raises(UserError, match=says):
        check_datasets(coco(made, **wrong), ("train",))


def test_datasets_inside_wrappers_are_looked_at(made, tmp_path):
    good = coco(made).train_dataloader.dataset
    bad = coco(tmp_path / "nowhere").train_dataloader.dataset
    for wrapper in (
        {"type": "RepeatDataset", "times": 3, "dataset": bad},
        {"type": "ConcatDataset", "datasets": [good, bad]},
        {"type": "MultiImageMixDataset", "dataset": {"type": "RepeatDataset", "dataset": bad}},
    ):
        with pytest.raises(UserError, match="nowhere"):
            check_datasets(
                Config({"default_scope": "mmdet", "train_dataloader": {"dataset": wrapper}}),
                ("train",),
            )
    check_datasets(
        Config({"default_scope": "mmdet", "train_dataloader": {"dataset": good}}), ("train", "val")
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_breaks_while_it_is_loaded_is_named(cfg, tmp_path, workers):
    root = provide_embedded(cfg, tmp_path)
    cfg.val_dataloader.update(num_workers=workers, persistent_workers=False)
    loader = Evaluation(cfg).loader
    (root / "val/000001.png").write_bytes(b"")
    with pytest.raises(UnusableImage) as caught:
        list(loader)
    assert caught.value.problem == f"{root}/val/000001.png is empty."
    assert "--skip-broken" in caught.value.remedy
