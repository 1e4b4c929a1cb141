"""``--data`` in place of a config: what is made of it, and that every phase takes it."""

from __future__ import annotations

import json
import shutil

import cv2
import pytest
import tiny

from sparsevit.data.make import make_dataset
from sparsevit.data.spec import DatasetSpec
from sparsevit.engine.config import load_config
from sparsevit.errors import UserError
from sparsevit.phases.own import make_config
from sparsevit.tasks import TASKS

FEW = (
    *("--set", "train_cfg.max_iters=2", "--set", "default_hooks.checkpoint.interval=1"),
    *("--set", "train_dataloader.batch_size=2"),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Boxes with masks and label maps, and what says which of them to use."""
    root = tmp_path_factory.mktemp("data")
    size = {"width": 64, "height": 64, "object_size": (12, 24), "objects": (2, 4)}
    classes = ("circle", "triangle", "square")
    make_dataset(root, DatasetSpec(train=8, val=4, classes=classes, labels=True, **size))
    for task in ("detection", "segmentation"):
        (root / f"{task}.yaml").write_text(f"task: {task}\nimage_size: 64x64\n")
    return root


@pytest.fixture(scope="module", params=["detection", "segmentation"])
def trained(request, made, tmp_path_factory):
    """The task, a workspace in which own data was trained on, and what was said."""
    path = tmp_path_factory.mktemp(request.param) / "workspace"
    words = ("pretrain", "--data", made / f"{request.param}.yaml", "--workspace", path)
    done = tiny.run(*words, *FEW, "--eval-images", 2, "--json")
    assert done.code == 0, done.err
    return request.param, path, done


def refused(problem, *words):
    done = tiny.run(*words)
    assert done.code == 2, done.err
    assert "Traceback" not in done.err
    flat = " ".join(line.strip("│ ") for line in done.err.splitlines())
    assert problem in flat, flat


def test_a_folder_is_enough_to_train_and_is_remembered(trained):
    task, path, done = trained
    assert "own data" in done.err
    assert done.document["config_source"] == "given"
    assert (path / "data/config.py").is_file()
    done = tiny.run("evaluate", "--workspace", path, "--json")
    assert done.code == 0, done.err
    assert done.document["images"] == 4
    assert TASKS[task].metric in done.document["metrics"]
    few = ("--batch-size", 1, "--warmup", 1, "--repeats", 1, "--json")
    timed = tiny.run("latency", "--workspace", path, *few)
    assert timed.document["img_size"] == [64, 64]


def test_a_config_that_was_edited_is_kept(made, tmp_path):
    data = made / "detection.yaml"
    config = make_config(data, workspace=tmp_path).config
    assert make_config(data, workspace=tmp_path).config == config
    config.write_text(config.read_text().replace("batch_size=4", "batch_size=3"))
    with pytest.raises(UserError, match="has been edited since it was made") as caught:
        make_config(data, workspace=tmp_path)
    assert str(config) in caught.value.remedy
    assert load_config(config).train_dataloader.batch_size == 3


def test_a_command_before_any_run_takes_the_data_of_the_workspace(made, tmp_path):
    config = make_config(made / "detection.yaml", workspace=tmp_path).config
    done = tiny.run("export-config", "--format", "py", "--workspace", tmp_path, "--json")
    assert done.code == 0, done.err
    assert json.dumps(str(made)) in done.document["text"].replace("'", '"')
    assert config == tmp_path / "data/config.py"


@pytest.mark.parametrize("model", ["tiny", "small", "base"])
@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_every_part_of_a_config_follows_the_data(made, tmp_path, task, model):
    config = make_config(made / f"{task}.yaml", model, workspace=tmp_path)
    cfg = load_config(config.config)
    TASKS[task].check_data(cfg, ("train", "val", "test"))
    assert cfg.train_dataloader.dataset.pipeline[2].scale == (64, 64)
    assert "embedded_dataset" not in cfg
    assert "init_cfg" not in cfg.model.backbone
    chosen = {choice.what for choice in config.choices}
    assert {"data", "classes", "model", "image size", "batch", "iterations"} <= chosen


def test_a_config_can_lend_its_model_and_its_schedule(made, tmp_path):
    name = "sparsevit::sparsevit/mask_rcnn_sparsevit.py"
    cfg = load_config(make_config(made, name, workspace=tmp_path).config)
    TASKS["detection"].check_data(cfg, ("train", "val", "test"))
    assert cfg.train_cfg.max_epochs == load_config(name).train_cfg.max_epochs
    name = "sparsevit::sparsevit/upernet_sparsevit-t_ade20k.py"
    cfg = load_config(make_config(segmentation(made, tmp_path), name, workspace=tmp_path).config)
    TASKS["segmentation"].check_data(cfg, ("train", "val", "test"))
    name = "sparsevit::swin/mask2former_swin-t_cityscapes.py"
    said = segmentation(made, tmp_path)
    cfg = load_config(make_config(said, name, workspace=tmp_path).config)
    assert cfg.model.decode_head.loss_cls.class_weight == [1.0] * 4 + [0.1]


def segmentation(made, folder):
    """The label maps, without a size."""
    said = folder / "labels.yaml"
    said.write_text(f"task: segmentation\nimages: {made}\nannotations: {made}/labels\n")
    return said


def test_masks_go_where_the_data_has_none(made, tmp_path):
    shutil.copytree(made, tmp_path / "boxes")
    for path in (tmp_path / "boxes/annotations").iterdir():
        content = json.loads(path.read_text())
        for note in content["annotations"]:
            note["segmentation"] = []
        path.write_text(json.dumps(content))
    cfg = load_config(make_config(tmp_path / "boxes", workspace=tmp_path).config)
    assert "mask_head" not in cfg.model.roi_head
    assert cfg.val_evaluator.metric == ["bbox"]
    TASKS["detection"].check_data(cfg, ("train", "val"))
    name = "mmdet::solo/solo_r50_fpn_1x_coco.py"
    with pytest.raises(UserError, match="predicts masks, and the data has boxes only"):
        make_config(tmp_path / "boxes", name, workspace=tmp_path)


def test_the_users_folder_is_never_written(made, tmp_path):
    one = shutil.copytree(made, tmp_path / "one")
    (one / "annotations/instances_val.json").unlink()
    before = tiny.files(one)
    config = make_config(one, workspace=tmp_path / "workspace").config
    assert tiny.files(one) == before
    cfg = load_config(config)
    assert str(tmp_path / "workspace/data/val-") in cfg.val_dataloader.dataset.ann_file
    TASKS["detection"].check_data(cfg, ("train", "val"))


# --- mistakes ------------------------------------------------------------------------------------


def test_mistakes_are_told_with_the_remedy(made, tmp_path, tiny_config):
    ws = ("--workspace", tmp_path / "w")
    detection = made / "detection.yaml"
    refused("are given", "pretrain", tiny_config, "--data", made, *ws)
    refused("there is no --data", "latency", "--model", "tiny", *ws)
    refused("is not there", "adapt", "--data", made / "nowhere", *ws)
    refused("There is no config huge", "adapt", "--data", made, "--model", "huge", *ws)
    refused(
        "is no config for segmentation",
        *("pretrain", "--data", made / "segmentation.yaml", "--model", tiny_config, *ws),
    )
    refused("image_size is given", "pretrain", "--data", detection, "--model", tiny_config, *ws)
    refused("which `sparsevit latency` does not take", "latency", "a.pth", "--data", detection, *ws)
    refused("a.pth is not a file", "pretrain", "a.pth", "--data", detection, *ws)
    assert not (tmp_path / "w/workspace.json").exists()


def test_label_maps_that_do_not_fit_are_refused_before_anything_is_written(made, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(made / "train", root / "images")
    shutil.copytree(made / "labels/train", root / "labels")
    (root / "images/000003.png").write_bytes(b"no image")
    (root / "classes.txt").write_text("a\nb\nc\nd\n")
    refused(
        "is not an image that can be read",
        "pretrain",
        "--data",
        root,
        "--workspace",
        tmp_path / "w",
    )
    assert not (tmp_path / "w").exists()


# --- data check ----------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_check_counts_and_draws(made, tmp_path, task):
    out = tmp_path / "sheet.png"
    done = tiny.run("data", "check", made / f"{task}.yaml", "--out", out, "--json")
    assert done.code == 0, done.err
    found = done.document
    assert found["splits"]["train"]["images"] == 8
    assert found["sizes"] == [[64, 64, 12]]
    assert [stage["windows"] for stage in found["windows"]] == [[3, 3], [2, 2], [1, 1], [1, 1]]
    assert any("1 window" in text for text in found["warnings"])
    assert cv2.imread(str(out)).std() > 10
    assert "padding" in tiny.run("data", "check", made / f"{task}.yaml", "--out", out).out


def test_check_tells_what_is_odd_and_what_cannot_be_used(made, tmp_path):
    root = shutil.copytree(made, tmp_path / "[bold]odd")
    path = root / "annotations/instances_train.json"
    content = json.loads(path.read_text())
    first = content["images"][0]["id"]
    notes = [note for note in content["annotations"] if note["image_id"] != first]
    notes[0]["bbox"] = [50, 50, 40, 40]
    content["categories"].append({"id": 77, "name": "rare"})
    notes.append({**notes[0], "id": 10_000, "category_id": 77, "bbox": [1, 1, 20, 20]})
    path.write_text(json.dumps({**content, "annotations": notes}))
    val = root / "annotations/instances_val.json"
    theirs = json.loads(val.read_text())
    theirs["categories"].append({"id": 77, "name": "rare"})
    val.write_text(json.dumps(theirs))
    (root / "val/000001.png").write_bytes(b"broken")
    done = tiny.run("data", "check", root, "--out", tmp_path / "a.png", "--json")
    assert done.code == 2
    warnings = "\n".join(done.document["warnings"])
    assert "train: 1 of 8 images have no annotation" in warnings
    assert "train: 1 boxes leave their image" in warnings
    assert "class rare is in train only, not in val" in warnings
    assert "1 of its 4 images cannot be used (000001.png" in done.document["faults"][0]
    done = tiny.run("data", "check", root, "--out", tmp_path / "a.png")
    assert "cannot be used" in done.out
    assert "[bold]odd" in done.out
    refused("is not a picture file", "data", "check", root, "--out", tmp_path / "a.txt")
    refused("Cannot write", "data", "check", root, "--out", tmp_path / "nowhere" / "a.png")
