"""`sparsevit export` writes what its runtime loads, says what it is, and keeps nothing wrong."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scripts
import tiny
import torch

from sparsevit.engine.config import load_config, sparsify_config
from sparsevit.engine.runner import build_model
from sparsevit.latency.backends import artefacts, prepare
from sparsevit.phases import export as phase
from sparsevit.sparsity.handle import SparsityHandle
from sparsevit.tasks.detection import backends as detection

SIZE = (64, 96)
WORDS = ("export", "--img-size", "96x64", "--batch-size", 2)
MAPS = [[2, 8, 16, 24], [2, 16, 8, 12], [2, 32, 4, 6], [2, 64, 2, 3]]


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def kept(monkeypatch):
    """A format that needs no runtime: weights in a file, loaded by this process's PyTorch."""
    written = {}

    def write(backbone, images, path):
        written["run"] = prepare("eager", backbone, images)
        path.with_suffix(".weights").write_text("weights", encoding="utf-8")
        path.write_text("graph", encoding="utf-8")
        return path

    def load(path, precision, device):
        assert path.read_text(encoding="utf-8") == "graph"
        return written["run"]

    form = artefacts.Format("kept", ".kept", (), lambda: None, write, load)
    monkeypatch.setitem(phase.FORMATS, "kept", form)
    return form


def said_by(done):
    """What a command said on stderr, without the frame and the line breaks."""
    return " ".join(line.strip("│ ") for line in done.err.splitlines()).replace("  ", " ")


def trained(finished):
    """The finetuned backbone of a finished workspace, and its checkpoint."""
    done = finished.documents["finetune"]
    checkpoint = Path(done["checkpoint"])
    cfg = sparsify_config(load_config(done["config"]))
    return build_model(cfg, checkpoint)[0], checkpoint


def test_a_file_is_described_beside_it(finished, kept, tmp_path):
    done = tiny.run(*WORDS, "--workspace", finished.path, "--out", "deep/small.kept", "--json")
    assert done.code == 0, done.err
    folder = tmp_path / "deep"
    names = ["small.kept", "small.kept.json", "small.weights"]
    assert sorted(path.name for path in folder.iterdir()) == names
    said = json.loads((folder / "small.kept.json").read_text(encoding="utf-8"))
    assert done.document["description"] == said
    detector, checkpoint = trained(finished)
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert said["checkpoint"] == {"file": checkpoint.name, "digest": f"sha256:{digest}"}
    assert said["sparsity"] == SparsityHandle(detector).get().to_dict()
    assert any(said["sparsity"].values())
    assert (said["format"], said["scope"], said["precision"]) == ("kept", "backbone", "fp32")
    assert said["input"]["shape"] == [2, 3, *SIZE]
    assert said["input"]["mean"] == [123.675, 116.28, 103.53]
    assert said["input"]["channels"] == "RGB"
    assert [one["shape"] for one in said["outputs"]] == MAPS
    assert said["versions"]["torch"] == torch.__version__
    assert (
        said["largest_difference_to_eager"] == done.document["differences"] == {"feature maps": 0}
    )


def test_a_sparsity_that_is_given_comes_first(finished, kept, tmp_path):
    ratios = dict.fromkeys(finished.documents["finetune"]["sparsity"], 0.3)
    Path("ratios.json").write_text(json.dumps({"sparsity": ratios}), encoding="utf-8")
    words = ("--workspace", finished.path, "--format", "kept", "--sparsity", "ratios.json")
    done = tiny.run(*WORDS, *words, "--json")
    assert done.code == 0, done.err
    assert done.document["sparsity"] == ratios
    assert Path(done.document["out"]).name == "backbone.kept"


def test_people_are_told_the_largest_difference(finished, kept):
    done = tiny.run(*WORDS, "--workspace", finished.path, "--out", "small.kept")
    assert done.code == 0, done.err
    assert "largest difference to eager PyTorch: 0.0e+00 feature maps" in done.out


@pytest.mark.parametrize("wrong", [0.01, float("nan")])
def test_a_file_that_differs_is_not_kept(wrong, finished, kept, tmp_path, monkeypatch):
    def load(path, precision, device):
        run = kept.load(path, precision, device)
        return lambda images: [one + wrong for one in run(images)]

    monkeypatch.setitem(phase.FORMATS, "kept", replace(kept, load=load))
    Path("small.kept").write_text("of before", encoding="utf-8")
    words = ("--workspace", finished.path, "--out", "small.kept", "--force")
    done = tiny.run(*WORDS, *words)
    assert done.code == 2
    assert "differs from eager" in said_by(done)
    assert tiny.files(tmp_path) == {"small.kept": b"of before"}


def test_a_file_with_a_map_of_another_shape_is_not_kept(finished, kept, tmp_path, monkeypatch):
    monkeypatch.setitem(
        phase.FORMATS, "kept", replace(kept, load=lambda *_: lambda images: [images])
    )
    assert tiny.run(*WORDS, "--workspace", finished.path, "--out", "small.kept").code == 2
    assert tiny.files(tmp_path) == {}


def test_windows_that_score_the_same_are_no_reason_to_refuse(finished, kept, monkeypatch):
    calls = []

    def load(path, precision, device):
        run = kept.load(path, precision, device)

        def unlucky_once(images):
            calls.append(images)
            return [one + (len(calls) == 1) for one in run(images)]

        return unlucky_once

    monkeypatch.setitem(phase.FORMATS, "kept", replace(kept, load=load))
    assert tiny.run(*WORDS, "--workspace", finished.path, "--out", "small.kept").code == 0
    assert len(calls) == 2
    assert not torch.equal(*calls)


def test_a_file_that_is_there_is_replaced_only_by_force(finished, kept, tmp_path):
    Path("small.kept").write_text("of before", encoding="utf-8")
    words = (*WORDS, "--workspace", finished.path, "--out", "small.kept")
    refused = tiny.run(*words)
    assert (refused.code, Path("small.kept").read_bytes()) == (2, b"of before")
    assert "--force" in said_by(refused)
    assert tiny.run(*words, "--force").code == 0
    assert Path("small.kept").read_bytes() == b"graph"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--format", "tflite"), "onnx, openvino, pt2, tensorrt"),
        (("--out", "small.bin"), ".xml"),
        (("--format", "onnx", "--out", "small.pt2"), ".onnx"),
        (("--out", "small.kept", "--img-size", "16"), "32x32"),
        (("--out", "small.kept", "--img-size", "wide"), "WIDTHxHEIGHT"),
        (("--out", "small.kept", "--batch-size", "0"), "--batch-size"),
        (("--out", "small.kept", "--scope", "neck"), "backbone"),
    ],
)
def test_what_cannot_be_exported_says_what_can(words, says, finished, kept, tmp_path):
    done = tiny.run("export", "--workspace", finished.path, *words)
    assert done.code == 2
    assert says in said_by(done)
    assert tiny.files(tmp_path) == {}


def test_without_weights_there_is_nothing_to_export(kept, tiny_config, tmp_path):
    done = tiny.run("export", tiny_config, "--workspace", tmp_path, "--out", "small.kept")
    assert done.code == 2
    assert "sparsevit export CONFIG CHECKPOINT" in said_by(done)


@pytest.mark.parametrize(("format", "package"), [("onnx", "onnxscript"), ("openvino", "openvino")])
def test_a_runtime_that_is_not_installed_names_its_extra(format, package, finished, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    done = tiny.run(*WORDS, "--workspace", finished.path, "--format", format)
    assert done.code == 2
    assert f"pip install 'sparsevit[{format}]'" in said_by(done)


def test_onnx_runs_in_its_runtime_alone(finished):
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    runtime = pytest.importorskip("onnxruntime")
    done = tiny.run(*WORDS, "--workspace", finished.path, "--out", "small.onnx", "--json")
    assert done.code == 0, done.err
    assert done.document["differences"]["feature maps"] < 1e-4
    session = runtime.InferenceSession("small.onnx", providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).normal(size=(2, 3, *SIZE)).astype(np.float32)
    images *= np.linspace(0.1, 2, SIZE[1], dtype=np.float32)
    maps = session.run(None, {"images": images})
    assert [one.name for one in session.get_outputs()] == [f"stage{i}" for i in range(4)]
    detector, _ = trained(finished)
    with torch.no_grad():
        expected = detector.get_submodule("backbone")(torch.from_numpy(images))
    for got, wanted in zip(maps, expected, strict=True):
        np.testing.assert_allclose(got, wanted.numpy(), atol=1e-4)
    gives_feature_maps(finished, "small_onnx.py")


def test_openvino_runs_in_its_runtime_alone(finished, tmp_path):
    openvino = pytest.importorskip("openvino")
    done = tiny.run(*WORDS, "--workspace", finished.path, "--out", "small.xml", "--json")
    assert done.code == 0, done.err
    names = {"small.bin", "small.xml", "small.xml.json", "small_openvino.py"}
    assert set(tiny.files(tmp_path)) == names
    model = openvino.Core().read_model("small.xml")
    assert list(model.input("images").shape) == [2, 3, *SIZE]
    assert [list(model.output(f"stage{i}").shape) for i in range(4)] == MAPS
    gives_feature_maps(finished, "small_openvino.py")
    Path("small.bin").unlink()
    refused = scripts.run_script(tmp_path / "small_openvino.py", made_image(finished), find=False)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == f"{tmp_path / 'small.bin'} is missing: it belongs beside small.xml.\n"


def made_image(finished):
    return next(finished.path.glob("data/shapes-*/val/*.png")).absolute()


def gives_feature_maps(finished, name):
    """Of an image, which fills the batch."""
    script = Path(name).absolute()
    image = scripts.resized(made_image(finished), script.with_name("wide.png"), 120, 70)
    ran = scripts.run_script(script, image)
    assert ran.code == 0, ran.err
    assert ran.out.splitlines() == [f"stage{i}  {tuple(MAPS[i])}" for i in range(4)]
    cfg = load_config(finished.documents["finetune"]["config"])
    detector, _ = trained(finished)
    data = scripts.prepared(cfg, detector, image, (96, 64))
    with torch.no_grad():
        expected = detector.get_submodule("backbone")(torch.cat([data["inputs"]] * 2))
    for got, wanted in zip(ran.found.values(), expected, strict=True):
        np.testing.assert_allclose(got, wanted.numpy(), atol=1e-3)


DETECTOR = (*WORDS, "--scope", "detector")


def test_a_detector_is_described_beside_it(finished, kept_detector, tmp_path):
    done = tiny.run(*DETECTOR, "--workspace", finished.path, "--out", "small.kept", "--json")
    assert done.code == 0, done.err
    said = json.loads((tmp_path / "small.kept.json").read_text(encoding="utf-8"))
    assert said["scope"] == done.document["scope"] == "detector"
    assert {one["name"]: one["shape"] for one in said["outputs"]} == {
        "boxes": [2, 20, 4],
        "scores": [2, 20],
        "labels": [2, 20],
        "masks": [2, 20, 28, 28],
    }
    assert said["sizes"]["shape"] == [2, 2]
    assert said["classes"] == ["circle", "triangle", "square"]
    assert said["test_cfg"]["rcnn"]["max_per_img"] == 20
    agreed = said["largest_difference_to_eager"]
    assert done.document["differences"] == {"boxes": 0, "scores": 0, "masks": 0}
    assert agreed["detections"] == done.document["compared"] > 0
    assert "score_threshold" not in agreed


def test_a_detector_that_finds_nothing_is_compared_at_a_lower_threshold(finished, kept_detector):
    words = ("--workspace", finished.path, "--set", "model.test_cfg.rcnn.score_thr=0.999999")
    done = tiny.run(*DETECTOR, *words, "--out", "small.kept", "--json")
    assert done.code == 0, done.err
    _, written = kept_detector
    assert written[0][1] == 0.999999
    assert len(written) == 2
    assert written[1][1] < 0.999999
    assert done.document["compared"] > 0
    # the one that is kept is the first
    assert Path("small.kept").read_text(encoding="utf-8") == "0"
    said = done.document["description"]
    assert said["test_cfg"]["rcnn"]["score_thr"] == 0.999999
    assert said["largest_difference_to_eager"]["score_threshold"] == written[1][1]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda one: replace(one, scores=one.scores + 0.01), "in scores"),
        (lambda one: replace(one, boxes=one.boxes + 1), "in boxes"),
        (lambda one: replace(one, masks=one.masks * float("nan")), "inf in masks"),
        (lambda one: replace(one, labels=one.labels + 1), "detections"),
    ],
    ids=["scores", "boxes", "masks", "labels"],
)
def test_a_detector_that_differs_is_not_kept(
    wrong, says, finished, kept_detector, tmp_path, monkeypatch
):
    form, _ = kept_detector

    def load(path, precision, device):
        run = form.load(path, precision, device)
        return lambda images, sizes: [wrong(one) for one in run(images, sizes)]

    monkeypatch.setitem(detection.FORMATS, "kept", replace(form, load=load))
    done = tiny.run(*DETECTOR, "--workspace", finished.path, "--out", "small.kept")
    assert done.code == 2
    assert says in said_by(done)
    assert tiny.files(tmp_path) == {}


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("model.test_cfg.rcnn.nms.type=soft_nms", "test_cfg.rcnn.nms"),
        ("model.test_cfg.rcnn.max_per_img=-1", "max_per_img"),
        ("model.roi_head.bbox_roi_extractor.roi_layer.pool_mode=max", "RoIAlign"),
    ],
)
def test_a_detector_of_another_kind_is_refused(setting, says, finished, kept_detector, tmp_path):
    words = ("--workspace", finished.path, "--set", setting, "--out", "small.kept")
    done = tiny.run(*DETECTOR, *words)
    assert done.code == 2
    assert says in said_by(done)
    assert tiny.files(tmp_path) == {}


def test_an_exported_detector_runs_in_its_runtime_alone(finished):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    words = ("--workspace", finished.path, "--batch-size", 1, "--out", "small.onnx", "--json")
    done = tiny.run(*DETECTOR, *words)
    assert done.code == 0, done.err
    assert done.document["compared"] > 0
    session = runtime.InferenceSession("small.onnx", providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_inputs()] == ["images", "sizes"]
    shapes = {one.name: one.shape for one in session.get_outputs()}
    assert shapes == {one["name"]: one["shape"] for one in done.document["description"]["outputs"]}
    script = Path("small_onnx.py").absolute()
    assert done.document["script"] == done.document["description"]["script"] == script.name
    assert done.document["files"] == ["small.onnx", "small_onnx.py", "small.onnx.json"]
    finds_what_mmdet_finds(finished, script)


def finds_what_mmdet_finds(finished, script):
    """In a picture that is scaled by 0.8 and padded below."""
    image = scripts.resized(made_image(finished), script.with_name("wide.png"), 120, 70)
    text = script.read_text(encoding="utf-8")
    script.write_text(text.replace("LEAST_SCORE = 0.3", "LEAST_SCORE = 0.0"), encoding="utf-8")
    ran = scripts.run_script(script, image)
    assert ran.code == 0, ran.err
    detector, _ = trained(finished)
    cfg = load_config(finished.documents["finetune"]["config"])
    expected = scripts.by_the_pipeline(cfg, detector, image, (96, 64)).pred_instances
    assert len(ran.found) == len(expected) > 3
    assert len(ran.out.splitlines()) == len(ran.found) + 1
    for one in ran.found:
        gaps = (expected.bboxes - torch.from_numpy(one["box"])).abs().amax(dim=1)
        gaps += (expected.labels != int(one["label"])) * 1e3
        nearest = int(gaps.argmin())
        assert gaps[nearest] < 1
        assert abs(float(expected.scores[nearest]) - one["score"]) < 1e-2
        masks = expected.masks[nearest].numpy()
        assert (masks != one["mask"]).mean() < 0.01
    assert scripts.changed_pixels(image, image.with_name("wide_found.png")) > 0
    says_what_is_wrong(script)


def says_what_is_wrong(script):
    script.with_name("empty.png").touch()
    script.with_name("folder.png").mkdir()
    script.with_name("text.png").write_text("no image", encoding="utf-8")
    for image in ("nowhere.png", "empty.png", "text.png", "folder.png"):
        ran = scripts.run_script(script, script.with_name(image), find=False)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err == f"{script.with_name(image)} cannot be read as an image.\n"
    ran = scripts.run_script(script, find=False)
    assert (ran.code, ran.err) == (2, f"usage: python {script.name} IMAGE\n")
    model = script.with_name("small.onnx")
    model.unlink()
    ran = scripts.run_script(script, script.with_name("wide.png"), find=False)
    assert (ran.code, ran.err) == (2, f"{model} is missing: it belongs beside this script.\n")


def test_a_script_that_is_there_is_replaced_only_by_force(finished, kept, tmp_path):
    Path("small_kept.py").write_text("mine", encoding="utf-8")
    words = (*WORDS, "--workspace", finished.path, "--out", "small.kept")
    refused = tiny.run(*words)
    assert refused.code == 2
    assert "small_kept.py already exists" in said_by(refused)
    assert tiny.files(tmp_path) == {"small_kept.py": b"mine"}
    done = tiny.run(*words, "--force", "--json")
    assert done.code == 0, done.err
    # none runs this format, and that of another file must not stay beside this one
    assert done.document["script"] is None
    assert "no script to run it: a file of the format kept has none" in said_by(done)
    assert not Path("small_kept.py").exists()
