"""BEVDet through the commands, and the whole of six cameras in every runtime against its own."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import scripts
import tiny
import torch
from mmengine.config import Config

from sparsevit.engine.checkpoint import load_weights, write_weights
from sparsevit.engine.config import load_config, sparsify_config
from sparsevit.engine.datasets import check_datasets, provide_embedded
from sparsevit.engine.evaluation import Evaluation
from sparsevit.engine.image_size import pipeline_sizes
from sparsevit.engine.preparation import preparation
from sparsevit.engine.runner import build_model
from sparsevit.errors import UserError
from sparsevit.latency.backends import prepare
from sparsevit.latency.backends.artefacts import FORMATS
from sparsevit.models.bev import BEVDet
from sparsevit.ops.rotated_boxes import rotated_iou
from sparsevit.sparsity.handle import SparsityHandle
from sparsevit.tasks import TASKS, task_of, task_of_model
from sparsevit.tasks.bev.backends import prepare_bevdet
from sparsevit.tasks.bev.export import difference, write_bevdet
from sparsevit.tasks.script import script_text

BEV = TASKS["bev"]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("bev") / "tiny.py"
    path.write_text(tiny.BEV, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def done(tmp_path_factory, config):
    """Every phase on the tiny config."""
    path = tmp_path_factory.mktemp("seen") / "workspace"
    documents = {}
    for words in (
        ["pretrain", config],
        ["adapt"],
        ["search", "--metric", "NDS", "--batch-size", "1", *tiny.SEARCH],
        ["finetune"],
        ["evaluate"],
    ):
        ran = tiny.run(*words, "--workspace", path, "--json")
        assert ran.code == 0, ran.err
        documents[words[0]] = ran.document
    return path, documents


@pytest.fixture
def scenes(done, config):
    """The tiny config, dense, on the scenes that the commands made."""
    cfg = load_config(config)
    provide_embedded(cfg, done[0] / "data")
    return cfg


@pytest.fixture
def model(config):
    torch.manual_seed(0)
    found, _ = build_model(sparsify_config(load_config(config)))
    return found


def of(kind, **cfg):
    return Config({"model": {"type": kind}, **cfg})


@pytest.mark.parametrize(
    "cfg",
    [
        of("BEVDet"),
        of("BEVDet", default_scope="mmdet"),
        of("mmdet.BEVDet", default_scope="mmseg"),
        of("BEVDet", default_scope="sparsevit"),
        of(BEVDet),
    ],
    ids=["no scope", "scope", "prefix", "our scope", "class"],
)
def test_a_config_of_bevdet_is_not_of_detection(cfg):
    assert task_of(cfg) is BEV


def test_the_model_names_its_task_and_its_backbone(model):
    assert task_of_model(model) is BEV
    assert BEV.backbone_of(model) is model.img_backbone
    assert all(
        name.startswith("img_backbone.stages.") for name in SparsityHandle(model).space.names
    )


# --- the commands -----------------------------------------------------------------------------


def test_every_phase_scores_nds(done):
    _, documents = done
    assert documents["search"]["metric"] == "NDS"
    assert {"NDS", "mAP", "mATE"} <= set(documents["pretrain"]["after"]["dense"])
    assert documents["evaluate"]["task"] == "bev"
    classes = documents["evaluate"]["classes"]["mAP"]
    assert list(classes) == ["car", "pedestrian"]
    assert sum(classes.values()) / 4 == pytest.approx(documents["evaluate"]["metrics"]["mAP"])


def test_the_configuration_that_was_found_is_the_one_that_is_evaluated(done):
    _, documents = done
    assert documents["evaluate"]["sparsity"] == documents["finetune"]["sparsity"]
    assert all(name.startswith("img_backbone.") for name in documents["evaluate"]["sparsity"])


def test_an_error_is_no_metric_to_search_for(done):
    ran = tiny.run(
        *("search", "--metric", "mATE", "--batch-size", "1", *tiny.SEARCH), "--workspace", done[0]
    )
    assert ran.code == 2
    assert "Use one of: NDS, mAP" in ran.err.replace("\n", " ")


@pytest.mark.parametrize("scope", ["backbone", "bev-detector"])
def test_latency_counts_samples_of_six_images(done, scope):
    words = ["--scope", scope, "--batch-size", 1, "--seconds", 0.05, "--warmup", 0]
    ran = tiny.run("latency", "--workspace", done[0], "--compare", *words, "--json")
    assert ran.code == 0, ran.err
    assert ran.document["img_size"] == [64, 128]
    assert [row["name"] for row in ran.document["rows"]] == ["dense", "sparse"]


@pytest.mark.parametrize("real", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_backbone_is_exported_for_six_images(done, tmp_path, monkeypatch, real):
    runs = []

    def write(backbone, images, path):
        runs.append(prepare("eager", backbone, images))
        path.write_text("graph", encoding="utf-8")
        return path

    # what a graph of a backbone computes is compared for other tasks
    quick = replace(FORMATS["pt2"], check=lambda: None, write=write, load=lambda *_: runs[0])
    if not real:
        monkeypatch.setitem(FORMATS, "pt2", quick)
    out = tmp_path / "backbone.pt2"
    words = ["--format", "pt2", "--batch-size", 1, "--out", out]
    ran = tiny.run("export", "--workspace", done[0], *words, "--json")
    assert ran.code == 0, ran.err
    given = json.loads(Path(f"{out}.json").read_text())["input"]
    assert given["shape"] == [6, 3, 64, 128]
    assert given["channels"] == "RGB"
    if not real:
        workspace = shutil.copytree(done[0], tmp_path / "workspace")
        by_file = ("--exported", out, "--frames", 1, "--workspace", workspace)
        assert tiny.run("predict", *by_file).code == 0
        return
    trained = done[1]["finetune"]
    cfg = sparsify_config(load_config(trained["config"]))
    model, _ = build_model(cfg, Path(trained["checkpoint"]))
    sample = val_sample(cfg, done[0])
    image = Path(sample["data_samples"].metainfo["img_paths"][0]).absolute()
    found = scripts.run_script(tmp_path / "backbone_pt2.py", image)
    assert found.code == 0, found.err
    assert found.out.splitlines()[0] == f"stage2  {tuple(found.found['stage2'].shape)}"
    # the one image stands in for all six
    inputs = {**sample["inputs"], "imgs": sample["inputs"]["imgs"][:1].repeat(6, 1, 1, 1)}
    images = model.data_preprocessor({"inputs": [inputs]}, False)["inputs"]["imgs"][0]
    with torch.no_grad():
        expected = model.img_backbone.eval()(images)
    for got, wanted in zip(found.found.values(), expected, strict=True):
        np.testing.assert_allclose(got, wanted.numpy(), atol=1e-3)


def val_sample(cfg, workspace):
    """The first sample of validation."""
    provide_embedded(cfg, workspace / "data")
    return Evaluation(cfg).loader.dataset[0]


def test_whole_models_of_other_tasks_are_refused(done):
    ran = tiny.run("evaluate", "--workspace", done[0], "--scope", "detector")
    assert ran.code == 2
    assert "--scope bev-detector" in ran.err


# --- the whole in other runtimes --------------------------------------------------------------


@pytest.mark.parametrize("backend", ["eager", "onnxruntime"])
def test_a_runtime_gives_what_the_model_gives_for_any_cameras(model, backend):
    handle = SparsityHandle(model)
    handle.set(handle.space.uniform(0.5))
    batch = BEV.random_batch(1, (64, 128))
    inputs = model.data_preprocessor(batch, False)["inputs"]
    run = prepare_bevdet(backend, model, inputs)
    handle.set(handle.space.dense())
    moved = {**inputs, "trans": inputs["trans"] + 5}
    handle.set(handle.space.uniform(0.5))
    for given in (inputs, moved):
        with torch.no_grad():
            expected = model(given, mode="tensor")
        for one, maps in zip(run(given), expected, strict=True):
            assert list(one) == list(maps)
            assert all(difference(one[name], maps[name]) < 1e-3 for name in maps)


def test_a_step_run_by_a_backend_finds_the_models_boxes(model):
    batch = BEV.random_batch(2, (64, 128))
    with torch.no_grad():
        expected = [one.pred_instances_3d.clone() for one in model.test_step(batch)]
    run = prepare_bevdet("eager", model, model.data_preprocessor(batch, False)["inputs"])
    for one, boxes in zip(BEV.as_step(model, run)(batch), expected, strict=True):
        assert torch.equal(one.pred_instances_3d.bboxes_3d, boxes.bboxes_3d)


@pytest.mark.parametrize("real", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_file_of_the_whole_is_checked_and_described(done, config, model, tmp_path, real):
    def write(model, inputs, path):
        path.write_text("graph", encoding="utf-8")
        return path

    def run(inputs):
        maps = prepare_bevdet("eager", model, inputs)(inputs)
        return [one for task in maps for one in task.values()]

    form = BEV.formats()["pt2"]
    form = form if real else replace(form, write=write, load=lambda *_: run)
    batch = BEV.random_batch(1, (64, 128))
    checked = write_bevdet(form, model, batch, tmp_path / "whole.pt2")
    assert [path.name for path in checked.files] == ["whole.pt2"]
    assert checked.differences["maps"] < 1e-3
    assert checked.outputs["task0_heatmap"] == [1, 1, 32, 32]
    described = BEV.describe_export(None, model, 1)
    assert described["grid"]["cells"] == [1, 32, 32]
    if real:
        finds_what_the_model_finds(done, config, model, checked, described, tmp_path)


def finds_what_the_model_finds(done, config, model, checked, described, folder):
    """In a sample, from its images' files and a list of its cameras."""
    cfg = load_config(config)
    sample = val_sample(cfg, done[0])
    given = {"shape": [6, 3, 64, 128], "channels": "RGB"}
    given |= {name: cfg.model.data_preprocessor[name] for name in ("mean", "std")}
    described = {**described, "outputs": [{"name": name} for name in checked.outputs]}
    finds = BEV.finding(model, described)
    finds.constants["LEAST_SCORE"] = model.pts_bbox_head.test_cfg.score_threshold
    script = folder / "whole_pt2.py"
    script.write_text(script_text("pt2", "whole.pt2", preparation(cfg, given, 1, False), finds))
    info = sample["data_samples"].metainfo
    cameras = [
        {
            "image": str(Path(path).absolute()),
            "intrinsic": np.asarray(info["intrinsics"][place])[:3, :3].tolist(),
            "camera_to_lidar": np.asarray(info["cam2lidar"][place]).tolist(),
        }
        for place, path in enumerate(info["img_paths"])
    ]
    listed = folder / "cameras.json"
    listed.write_text(json.dumps(cameras), encoding="utf-8")
    ran = scripts.run_script(script, listed, reads="read_cameras")
    assert ran.code == 0, ran.err
    with torch.no_grad():
        (expected,) = model.test_step(BEV.batch_from([sample]))
    boxes = expected.pred_instances_3d
    assert len(ran.found) == len(boxes.scores_3d) > 3
    assert len(ran.out.splitlines()) == len(ran.found) + 1
    names = [name for names in described["classes"] for name in names]
    for one in ran.found:
        gaps = (boxes.bboxes_3d - torch.from_numpy(one["box"])).abs().amax(dim=1)
        gaps += (boxes.labels_3d != names.index(one["class"])) * 1e3
        assert gaps.min() < 1e-2
        assert abs(float(boxes.scores_3d[gaps.argmin()]) - one["score"]) < 1e-3
    assert (folder / "cameras_found.png").stat().st_size > 1000
    for wrong in ("", "[]", json.dumps(cameras[:5]), json.dumps([{}] * 6), "{}", "[1]"):
        listed.write_text(wrong, encoding="utf-8")
        ran = scripts.run_script(script, listed, find=False)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err.startswith(f"{listed} is no list of 6 cameras")
        assert len(ran.err.splitlines()) == 1


def test_a_script_takes_boxes_for_one_where_the_head_does(model):
    described = {**BEV.describe_export(None, model, 1), "outputs": []}
    finds = BEV.finding(model, described)
    names = {"np": np, "cv2": cv2, "math": math, **finds.constants}
    exec(finds.code, names)
    assert [one["nms"] for one in names["TASKS"]] == ["rotate", "circle"]
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(40, 5, generator=generator) * torch.tensor([6, 6, 3, 5, 6.3]) + 0.2
    overlap = rotated_iou(boxes, boxes)
    task = {"nms": "rotate", "threshold": 0.2}
    clear = (overlap - 0.2).abs() > 1e-3
    found = [
        [names["repeats"](task, one, other) for other in boxes.numpy()] for one in boxes.numpy()
    ]
    same = torch.tensor(found) == (overlap > 0.2)
    assert same[clear].all()
    assert 100 < (overlap > 0.2).sum() < 1500


# --- weights, data, pictures ------------------------------------------------------------------


def test_the_backbone_of_a_detector_loads_into_bevdet(model, tmp_path):
    weights = {
        f"backbone.{name}": torch.full_like(value, 0.25)
        for name, value in model.img_backbone.state_dict().items()
        if value.is_floating_point()
    }
    path = write_weights(tmp_path / "detector.pth", {**weights, "head.weight": torch.ones(1)})
    report = load_weights(model, path)
    assert len(report.loaded) == len(weights)
    assert report.unexpected == ("head.weight",)
    assert model.img_backbone.stages[0].blocks[0].norm1.weight.unique().tolist() == [0.25]


@pytest.mark.parametrize("name", ["bevdet_swin-t", "bevdet_sparsevit-t_512x1408_saa"])
def test_the_size_of_images_is_known_without_any(name):
    size = (512, 1408) if "512" in name else (256, 704)
    assert list(pipeline_sizes(load_config(name)).counts) == [size]


def test_a_head_for_other_classes_is_refused(scenes):
    scenes.val_dataloader.dataset.metainfo = {"classes": ("pedestrian", "car")}
    with pytest.raises(UserError, match=r"tasks are for the classes car, pedestrian"):
        check_datasets(scenes, ("val",))


def test_a_pipeline_for_another_size_is_refused(scenes):
    scenes.model.img_view_transformer.data_config.input_size = (96, 128)
    with pytest.raises(UserError, match=r"images of \(64, 128\)"):
        check_datasets(scenes, ("train",))


def test_a_sample_without_an_image_is_refused_or_left_out(scenes, tmp_path):
    root = Path(shutil.copytree(scenes.data_root, tmp_path / "scenes"))
    scenes.val_dataloader.dataset.data_root = str(root)
    missing = Evaluation(scenes).loader.dataset.get_data_info(1)["img_paths"][2]
    Path(missing).unlink()
    with pytest.raises(UserError, match="CAM_FRONT_RIGHT"):
        check_datasets(scenes, ("val",))
    (said,) = check_datasets(scenes, ("val",), tmp_path)
    assert "1 of 3 samples" in said
    assert len(Evaluation(scenes).loader.dataset) == 2


def test_what_is_found_is_drawn_and_written_as_plain_data(scenes, tmp_path):
    dataset = Evaluation(scenes).loader.dataset
    sample = dataset[0]["data_samples"]
    sample.pred_instances_3d = sample.gt_instances_3d.clone()
    boxes = len(sample.pred_instances_3d.bboxes_3d)
    sample.pred_instances_3d.scores_3d = torch.full((boxes,), 0.5)
    drawn = BEV.draw(sample, None, tmp_path / "drawn.png", dataset.metainfo)
    assert drawn.stat().st_size > 10_000
    found = BEV.to_json(sample)
    assert len(found) == boxes
    assert json.loads(json.dumps(found))[0]["sample"] == sample.metainfo["sample_token"]


def test_samples_of_the_dataset_are_predicted_and_single_images_refused(done, tmp_path):
    workspace = shutil.copytree(done[0], tmp_path / "workspace")
    words = ("--workspace", workspace, "--out", tmp_path / "drawn")
    ran = tiny.run("predict", "--frames", 2, *words, "--json")
    assert ran.code == 0, ran.err
    assert len(ran.document["images"]) == 2
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 2
    samples = {one["sample"] for one in ran.document["predictions"]}
    assert len(samples) == 2
    photo = next((workspace / "data").glob("*/samples/CAM_FRONT/*"))
    ran = tiny.run("predict", photo, *words)
    assert ran.code == 2
    assert "6 images of calibrated cameras" in " ".join(ran.err.replace("│", "").split())
