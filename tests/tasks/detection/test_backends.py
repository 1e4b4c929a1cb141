"""Every backend finds in an image what eager mmdet finds in it."""

from __future__ import annotations

import functools
import os
import shutil

import pytest
import tiny
import torch
from mmdet.models import StandardRoIHead
from mmengine.config import Config

from sparsevit.engine.config import load_config, sparsify_config
from sparsevit.engine.runner import build_model
from sparsevit.errors import UserError
from sparsevit.latency.backends import pytorch as base
from sparsevit.latency.backends.registry import Backend
from sparsevit.latency.backends.stand_in import whole_in
from sparsevit.models import forms as compiled_models
from sparsevit.tasks.detection import Detection
from sparsevit.tasks.detection.backends import (
    BACKENDS,
    FORMATS,
    as_test_step,
    prepare_detector,
    prepare_detector_eager,
)
from sparsevit.tasks.detection.graph import PLAIN_OPS, detector_graph, running

SIZE = (96, 128)


def lively(cfg: Config, seed: int = 0):
    """A detector that finds things: weights so large that scores and boxes differ."""
    torch.manual_seed(seed)
    model, _ = build_model(cfg)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name:
                continue
            if p.ndim > 1:
                p.normal_(0, 1.3 * p[0].numel() ** -0.5)
            elif name.endswith("bias"):
                p.normal_(0, 0.1)
        model.rpn_head.rpn_reg.weight.mul_(0.3)
        model.roi_head.bbox_head.fc_reg.weight.mul_(2)
    return model


@pytest.fixture
def _fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def cfg(tiny_config):
    return with_settings(sparsify_config(load_config(tiny_config)))


def with_settings(cfg: Config) -> Config:
    cfg.model.test_cfg.rcnn.score_thr = 0.3
    cfg.model.test_cfg.rcnn.max_per_img = 30
    cfg.model.test_cfg.rpn.nms_pre = 60
    cfg.model.test_cfg.rpn.max_per_img = 50
    return cfg


@pytest.fixture(scope="module")
def detector(cfg):
    return lively(cfg)


def batch_of(count: int, size=SIZE, scale=(1.0, 1.0), seed=3):
    """A batch as mmdet's data loader gives it, of noisy pixels with some large shapes."""
    from mmdet.structures import DetDataSample

    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 3, *size), generator=generator)
    coarse = torch.randint(0, 256, (count, 3, 4, 5), generator=generator).float()
    pixels = (0.3 * pixels + 0.7 * torch.nn.functional.interpolate(coarse, size)).to(torch.uint8)
    original = tuple(round(side / by) for side, by in zip(size, reversed(scale), strict=True))
    samples = []
    for index in range(count):
        info = {"img_id": index, "img_shape": size, "ori_shape": original, "scale_factor": scale}
        samples.append(DetDataSample(metainfo=info))
    return {"inputs": list(pixels), "data_samples": samples}


def prepared_images(model, batch):
    data = model.data_preprocessor({**batch}, False)
    return data["inputs"]


def assert_same(found, expected, tolerance=1e-4):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        got, wanted = a.pred_instances, b.pred_instances
        assert len(got) == len(wanted) > 3
        assert torch.equal(got.labels, wanted.labels)
        torch.testing.assert_close(got.bboxes, wanted.bboxes, atol=100 * tolerance, rtol=0)
        torch.testing.assert_close(got.scores, wanted.scores, atol=tolerance, rtol=0)
        assert ("masks" in got) == ("masks" in wanted)
        if "masks" in got:
            assert got.masks.shape == wanted.masks.shape
            assert (got.masks != wanted.masks).float().mean() < 1e-3
            assert wanted.masks.any()


@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_eager_gives_what_mmdet_gives(ratio, detector):
    detector.backbone.pruning_ratios = ratio
    # 90 rows: the batch is padded to 96, and boxes must end at 90
    batch = batch_of(2, size=(90, 128), scale=(0.5, 0.45))
    with torch.no_grad():
        expected = [one.clone() for one in detector.test_step(batch_of(2, (90, 128), (0.5, 0.45)))]
    run = prepare_detector("eager", detector, prepared_images(detector, batch))
    detector.backbone.pruning_ratios = 0.2
    assert_same(as_test_step(detector, run)(batch), expected, 1e-6)


LOADERS = {"onnxruntime": FORMATS["onnx"].load, "openvino": FORMATS["openvino"].load}


@pytest.fixture(
    scope="module",
    params=["SparseViT", pytest.param("SwinTransformer", marks=pytest.mark.slow)],
)
def exported(request, cfg, tiny_config, tmp_path_factory):
    """A detector and its ONNX file, for two images; sparse, or dense as mmdet has it."""
    pytest.importorskip("onnxscript")
    dense = request.param == "SwinTransformer"
    model = lively(with_settings(load_config(tiny_config)) if dense else cfg)
    if not dense:
        model.backbone.pruning_ratios = 0.5
    assert type(model.backbone).__name__ == request.param
    path = tmp_path_factory.mktemp("exported") / "detector.onnx"
    images = prepared_images(model, batch_of(2))
    return model, FORMATS["onnx"].write(model, images, path)


@pytest.mark.parametrize("name", LOADERS)
def test_a_runtime_finds_what_mmdet_finds(name, exported):
    pytest.importorskip(name)
    model, path = exported
    step = as_test_step(model, LOADERS[name](path, "fp32", torch.device("cpu")))
    # other images than those it was made with, as large and smaller
    for size, seed in ((SIZE, 4), ((90, 128), 5)):
        batch = (2, size, (0.5, 0.45), seed)
        with torch.no_grad():
            expected = [one.clone() for one in model.test_step(batch_of(*batch))]
        assert_same(step(batch_of(*batch)), expected)


@pytest.mark.parametrize("name", LOADERS)
def test_where_nothing_is_found_nothing_comes_out(name, exported):
    pytest.importorskip(name)
    model, path = exported
    images = prepared_images(model, batch_of(2))
    # all of the second image is padding
    sizes = torch.tensor([SIZE, (0, 0)], dtype=torch.float32)
    for run in (
        LOADERS[name](path, "fp32", torch.device("cpu")),
        prepare_detector("eager", model, images),
    ):
        first, second = run(images, sizes)
        assert len(first) > 3
        assert len(second) == 0
        assert second.boxes.shape == (0, 4)
        assert second.masks.shape == (0, 28, 28)


def test_the_graph_of_a_pt2_package_finds_what_mmdet_finds(detector):
    detector.backbone.pruning_ratios = 0.5
    graph = detector_graph(detector, prepared_images(detector, batch_of(1)), PLAIN_OPS)
    program = graph.program
    # nothing in it that needs our Python
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not [name for name in called if "sparsevit" in name or "mmcv" in name]
    assert graph.outputs == ("boxes", "scores", "labels", "masks")
    step = as_test_step(detector, running(program.module()))
    with torch.no_grad():
        expected = [one.clone() for one in detector.test_step(batch_of(1, seed=6))]
        assert_same(step(batch_of(1, seed=6)), expected)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="no C++ compiler")
def test_a_pt2_package_finds_what_mmdet_finds(detector, tmp_path):
    """The graph may be right and the native code of it not: convolutions on lists were not."""
    detector.backbone.pruning_ratios = 0.5
    images = prepared_images(detector, batch_of(1))
    path = FORMATS["pt2"].write(detector, images, tmp_path / "small.pt2")
    step = as_test_step(detector, FORMATS["pt2"].load(path, "fp32", torch.device("cpu")))
    with torch.no_grad():
        expected = [one.clone() for one in detector.test_step(batch_of(1, seed=6))]
    assert_same(step(batch_of(1, seed=6)), expected)


@pytest.mark.usefixtures("_fresh_dynamo")
def test_compiled_pieces_find_what_mmdet_finds(detector, monkeypatch):
    eagerly = functools.partial(torch.compile, backend="eager")
    monkeypatch.setattr(torch, "compile", eagerly)
    monkeypatch.setattr(compiled_models, "default_pieces", compiled_models.compiled_pieces)
    monkeypatch.setattr(base, "require_compiler", lambda what: None)
    detector.backbone.pruning_ratios = 0.5
    run = prepare_detector("compile", detector, prepared_images(detector, batch_of(2)))
    for ratio, seed in ((0.5, 4), (0.5, 5)):
        detector.backbone.pruning_ratios = ratio
        with torch.no_grad():
            expected = [one.clone() for one in detector.test_step(batch_of(2, seed=seed))]
        assert_same(as_test_step(detector, run)(batch_of(2, seed=seed)), expected)


def test_an_exported_file_runs_in_its_runtime_alone(exported):
    runtime = pytest.importorskip("onnxruntime")
    _, path = exported
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_inputs()] == ["images", "sizes"]
    assert {one.name: one.shape for one in session.get_outputs()} == {
        "boxes": [2, 30, 4],
        "scores": [2, 30],
        "labels": [2, 30],
        "masks": [2, 30, 28, 28],
    }


def test_latency_times_a_whole_detector_in_a_backend(tiny_config, tmp_path, monkeypatch):
    prepared = []

    def prepare_quickly(model, images, precision, device):
        prepared.append(tuple(images.shape))
        return prepare_detector_eager(model, images, precision, device)

    # what it computes by itself is compared above
    quick = Backend("openvino", lambda precision, device: None, prepare_quickly)
    monkeypatch.setitem(BACKENDS, "openvino", quick)
    words = ("--img-size", 64, "--batch-size", 1, "--repeats", 1, "--warmup", 0, "--json")
    done = tiny.run(
        *("latency", tiny_config, "--workspace", tmp_path, "--scope", "detector"),
        *("--backend", "openvino", *words),
    )
    assert done.code == 0, done.err
    assert (done.document["backend"], done.document["scope"]) == ("openvino", "detector")
    assert done.document["rows"][0]["latency"]["mean_ms"] > 0
    assert prepared == [(1, 3, 64, 64)]


def test_openvino_takes_a_detector_in_fp32_only(detector):
    pytest.importorskip("openvino")
    with pytest.raises(UserError, match="fp32"):
        prepare_detector("openvino", detector, torch.zeros(1, 3, *SIZE), "bf16")


def test_a_step_of_evaluation_runs_in_the_backend(detector):
    detector.backbone.pruning_ratios = 0.0
    shapes = []
    with torch.no_grad():
        expected = [one.clone() for one in detector.val_step(batch_of(2))]
        cpu = torch.device("cpu")
        with whole_in(Detection(), detector, "eager", "fp32", cpu, on_prepare=shapes.append):
            assert_same(detector.val_step(batch_of(2)), expected, 1e-6)
            detector.val_step(batch_of(1)), detector.val_step(batch_of(2, seed=5))
    assert shapes == [(2, 3, *SIZE), (1, 3, *SIZE)]
    assert "val_step" not in vars(detector)


class Cascade(StandardRoIHead):
    """Another inference of its own."""

    def predict_bbox(self, *args, **kwargs):
        raise NotImplementedError


def test_a_head_with_its_own_inference_is_refused(detector, monkeypatch):
    monkeypatch.setattr(detector.roi_head, "__class__", Cascade)
    with pytest.raises(UserError, match="Cascade, with its own predict_bbox"):
        prepare_detector("eager", detector, torch.zeros(1, 3, *SIZE))


@pytest.mark.parametrize("key", ["rcnn", "rpn"])
def test_other_nms_is_refused(key, cfg):
    cfg = cfg.copy()
    cfg.model.test_cfg[key].nms = {"type": "soft_nms", "iou_threshold": 0.5}
    model, _ = build_model(cfg)
    with pytest.raises(UserError, match=f"test_cfg.{key}.nms") as caught:
        prepare_detector("eager", model, torch.zeros(1, 3, *SIZE))
    assert "Mask R-CNN" in caught.value.remedy
