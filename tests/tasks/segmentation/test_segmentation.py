"""Segmentation through the commands, and a whole segmentor in every runtime against mmseg's own."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import scripts
import tiny
import torch
from mmengine.config import Config

from sparsevit.engine.config import load_config, sparsify_config
from sparsevit.engine.runner import build_model
from sparsevit.errors import UserError
from sparsevit.sparsity.handle import SparsityHandle
from sparsevit.tasks import task_of, task_of_model
from sparsevit.tasks.segmentation import labels
from sparsevit.tasks.segmentation.backends import as_test_step, prepare_segmentor

CPU = torch.device("cpu")
MASK2FORMER = "mmseg::mask2former/mask2former_swin-t_8xb2-90k_cityscapes-512x1024.py"
SMALL_HEAD = (
    *("model.backbone.embed_dims=16", "model.backbone.depths=[2,2,2,2]"),
    *("model.backbone.num_heads=[1,2,4,8]", "model.decode_head.in_channels=[16,32,64,128]"),
    "model.decode_head.num_queries=10",
)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("segmentation") / "tiny.py"
    path.write_text(tiny.SEGMENTATION, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def done(tmp_path_factory, config):
    """Every phase on the tiny config."""
    path = tmp_path_factory.mktemp("segmented") / "workspace"
    documents = {}
    for words in (
        ["pretrain", config],
        ["adapt"],
        ["search", *tiny.SEARCH],
        ["finetune"],
        ["evaluate"],
    ):
        ran = tiny.run(*words, "--workspace", path, "--json")
        assert ran.code == 0, ran.err
        documents[words[0]] = ran.document
    return path, documents


@pytest.fixture
def segmentor(config):
    torch.manual_seed(0)
    cfg = sparsify_config(load_config(config))
    model, _ = build_model(cfg)
    return model


def test_every_phase_scores_mean_iou(done):
    _, documents = done
    assert documents["search"]["metric"] == "mIoU"
    assert set(documents["pretrain"]["after"]["dense"]) == {"aAcc", "mIoU", "mAcc"}
    assert {"aAcc", "mIoU", "mAcc"} <= set(documents["evaluate"]["metrics"])
    assert documents["evaluate"]["task"] == "segmentation"


def test_evaluate_scores_each_class(done):
    by_class = done[1]["evaluate"]["classes"]
    assert list(by_class["mIoU"]) == ["background", "circle", "triangle", "square"]
    mean = sum(by_class["mIoU"].values()) / 4
    assert mean == pytest.approx(done[1]["evaluate"]["metrics"]["mIoU"], abs=0.01)


def test_what_is_predicted_is_a_class_for_each_pixel(done, tmp_path):
    workspace = shutil.copytree(done[0], tmp_path / "workspace")
    photo = next((workspace / "data").glob("*/val/*.png"))
    ran = tiny.run("predict", photo, "--workspace", workspace, "--windows", "--json")
    assert ran.code == 0, ran.err
    (image,) = ran.document["images"]
    assert (image["width"], image["height"]) == (64, 64)
    assert sum(one["pixels"] for one in ran.document["predictions"]) == 64 * 64
    names = [Path(path).name for path in ran.document["files"]]
    assert names == [f"{photo.stem}.windows.png", f"{photo.stem}.png", "predictions.json"]


@pytest.mark.parametrize(
    ("backend", "ratio"),
    # OpenVINO is compared for classifiers, by the same code
    [("eager", 0.0), ("eager", 0.5), ("onnxruntime", 0.5)],
)
def test_a_runtime_gives_what_mmseg_gives(segmentor, backend, ratio):
    task = task_of_model(segmentor)
    handle = SparsityHandle(segmentor)
    handle.set(handle.space.uniform(ratio))
    batch = task.random_batch(2, (64, 96))
    with torch.no_grad():
        expected = [one.seg_logits.data.clone() for one in segmentor.test_step(batch)]
    images = segmentor.data_preprocessor(batch, False)["inputs"]
    run = prepare_segmentor(backend, segmentor, images)
    found = as_test_step(segmentor, run)(batch)
    for one, logits in zip(found, expected, strict=True):
        assert torch.allclose(one.seg_logits.data, logits, atol=1e-4)


def test_one_that_slides_is_run_on_crops_and_joined_by_mmseg(segmentor):
    segmentor.test_cfg = Config({"mode": "slide", "crop_size": (64, 64), "stride": (48, 48)})
    task = task_of_model(segmentor)
    batch = task.random_batch(1, (96, 128))
    with torch.no_grad():
        expected = segmentor.test_step(batch)[0].seg_logits.data.clone()
    seen = []

    def watched(images):
        seen.append(tuple(images.shape))
        return run(images)

    images = segmentor.data_preprocessor(batch, False)["inputs"]
    run = prepare_segmentor("eager", segmentor, images)
    found = as_test_step(segmentor, watched)(batch)[0].seg_logits.data
    assert set(seen) == {(1, 3, 64, 64)}
    assert len(seen) > 1
    assert torch.allclose(found, expected, atol=1e-4)


def test_mask2former_with_plain_sizes_is_mmsegs_own():
    torch.manual_seed(0)
    cfg = sparsify_config(load_config(MASK2FORMER, SMALL_HEAD))
    assert task_of(cfg).name == "segmentation"
    model, _ = build_model(cfg)
    batch = task_of_model(model).random_batch(1, (64, 96))
    images = model.data_preprocessor(batch, False)["inputs"]
    from sparsevit.tasks.segmentation.backends import Network
    from sparsevit.tasks.segmentation.static_mask2former import with_plain_sizes

    plain = Network(model, head=with_plain_sizes(model.decode_head)).eval()
    with torch.no_grad():
        assert torch.allclose(plain(images), Network(model).eval()(images), atol=1e-5)


def test_the_script_beside_a_file_finds_what_mmseg_finds(done, tmp_path):
    out = tmp_path / "segmentor.xml"
    words = ("--scope", "segmentor", "--out", out, "--img-size", "96x64", "--workspace", done[0])
    ran = tiny.run("export", *words, "--json")
    assert ran.code == 0, ran.err
    made = next((done[0] / "data").glob("shapes-*/val/*.png"))
    image = scripts.resized(made, tmp_path / "wide.png", 180, 120)
    found = scripts.run_script(tmp_path / "segmentor_openvino.py", image)
    assert found.code == 0, found.err
    trained = done[1]["finetune"]
    cfg = sparsify_config(load_config(trained["config"]))
    model, _ = build_model(cfg, Path(trained["checkpoint"]))
    expected = scripts.by_the_pipeline(cfg, model, image, (96, 64)).pred_sem_seg.data[0].numpy()
    assert (found.found == expected).mean() > 0.99
    assert sorted(line.split()[-1] for line in found.out.splitlines()[:-1]) == sorted(
        repr(cfg.metainfo.classes[label]) for label in set(expected.ravel().tolist())
    )
    assert scripts.changed_pixels(image, tmp_path / "wide_found.png") > 0.5


@pytest.mark.parametrize(
    ("name", "backbone"),
    [("mask2former_sparsevit-t_cityscapes", "SparseViT"), ("upernet_swin-t_ade20k", "Swin")],
)
def test_shipped_segmentors_are_known(name, backbone):
    cfg = load_config(name)
    assert task_of(cfg).name == "segmentation"
    assert backbone in cfg.model.backbone.type


# --- labels ---------------------------------------------------------------------------------------


def check(config, root, **changes):
    cfg = load_config(config)
    cfg.val_dataloader.dataset.data_root = str(root)
    for key, value in changes.items():
        cfg.val_dataloader.dataset[key] = value
    return labels.check_data(cfg, ["val"])


@pytest.fixture
def root(done, tmp_path):
    (made,) = (done[0] / "data").glob("shapes-*")
    return shutil.copytree(made, tmp_path / "data")


def test_a_made_dataset_is_accepted(config, root):
    assert check(config, root) == ()


def test_an_image_without_a_label_map_is_named(config, root):
    (root / "labels/val/000002.png").unlink()
    with pytest.raises(UserError, match=r"1 of 6 images have no label map.*000002"):
        check(config, root)


@pytest.mark.parametrize(
    ("pixels", "says"),
    [((32, 64), "is 64x32 and its image"), ((64, 64, 3), "3 channels")],
)
def test_a_label_map_of_another_shape_is_refused(config, root, pixels, says):
    import cv2
    import numpy as np

    cv2.imwrite(str(root / "labels/val/000000.png"), np.zeros(pixels, np.uint8))
    with pytest.raises(UserError, match=says):
        check(config, root)


def test_a_label_that_is_no_class_is_refused(config, root):
    import cv2

    path = str(root / "labels/val/000000.png")
    changed = cv2.imread(path, cv2.IMREAD_UNCHANGED)
    changed[0, 0] = 17
    cv2.imwrite(path, changed)
    with pytest.raises(UserError, match="the label 17, and there are 4 classes"):
        check(config, root)


def test_broken_images_are_refused_together_or_left_out(config, root, tmp_path):
    (root / "val/000001.png").write_bytes(b"no image")
    label_map = root / "labels/val/000003.png"
    label_map.write_bytes(label_map.read_bytes()[:-30])
    cfg = load_config(config)
    cfg.val_dataloader.dataset.data_root = str(root)
    with pytest.raises(UserError, match=r"2 of 6 images .*000001.*; .*000003.png is cut") as caught:
        labels.check_data(cfg, ["val"])
    assert "--skip-broken" in caught.value.remedy
    (said,) = labels.check_data(cfg, ["val"], tmp_path / "copies")
    assert said.startswith("left out: 2 of 6 images")
    listed = Path(cfg.val_dataloader.dataset.ann_file)
    assert listed.parent == tmp_path / "copies"
    assert listed.read_text().split() == ["000000", "000002", "000004", "000005"]
    assert labels.check_data(cfg, ["val"]) == ()


def test_of_images_that_are_all_broken_none_can_be_left_out(config, root, tmp_path):
    for image in (root / "val").iterdir():
        image.write_bytes(b"")
    cfg = load_config(config)
    cfg.val_dataloader.dataset.data_root = str(root)
    with pytest.raises(UserError, match="6 of 6 images"):
        labels.check_data(cfg, ["val"], tmp_path / "copies")
    assert not (tmp_path / "copies").exists()


def test_a_folder_that_is_not_there_is_named(config, root):
    with pytest.raises(UserError, match=r"no folder .*nowhere"):
        check(config, root, data_prefix={"img_path": "nowhere", "seg_map_path": "labels/val"})


# --- what a user may get wrong --------------------------------------------------------------------


@pytest.mark.parametrize("command", ["evaluate", "latency", "export"])
def test_the_scope_of_another_task_is_refused(done, command, tmp_path):
    record = (done[0] / "workspace.json").read_bytes()
    more = ["--out", tmp_path / "model.onnx"] if command == "export" else []
    ran = tiny.run(command, "--workspace", done[0], "--scope", "detector", *more)
    assert ran.code == 2
    assert "this config has a segmentor" in " ".join(ran.err.split())
    assert (done[0] / "workspace.json").read_bytes() == record


def test_without_mmsegmentation_the_remedy_is_its_name(config, monkeypatch):
    cfg = load_config(config)
    monkeypatch.setitem(sys.modules, "mmseg.datasets", None)
    with pytest.raises(UserError, match="needs mmsegmentation") as caught:
        task_of(cfg)
    assert "sparsevit[all]" in caught.value.remedy
