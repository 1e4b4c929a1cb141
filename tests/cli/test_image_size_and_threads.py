"""Every command that times or exports takes the size of the test images; `--threads` is heeded."""

from __future__ import annotations

import json
import os

import pytest
import tiny
import torch

from sparsevit.errors import UserError
from sparsevit.latency.execution import Execution
from sparsevit.phases.latency_source import settled_predictor
from sparsevit.phases.sensitivity import sensitivity

# few points of each knob
FEW = ("--set", "model.backbone.sparsity_choices=[0,0.5]")
QUICK = ("--batch-size", 1, "--repeats", 1, "--warmup", 1)


def said_by(done):
    return " ".join(line.strip("│ ") for line in done.err.splitlines())


@pytest.fixture(scope="module")
def not_square(tmp_path_factory):
    """A pretrained detector of images of 160x120 that are resized within 96x64."""
    folder = tmp_path_factory.mktemp("not-square")
    text = tiny.CONFIG.replace("width=64, height=64", "width=160, height=120")
    text = text.replace("scale=(64, 64)", "scale=(128, 96)")
    text = text.replace("train=8, val=6", "train=2, val=2")
    (folder / "config.py").write_text(text)
    words = ("--workspace", folder / "workspace", "--set", "train_cfg.max_iters=1")
    done = tiny.run("pretrain", folder / "config.py", *words)
    assert done.code == 0, done.err
    return folder / "workspace"


@pytest.mark.parametrize(
    "words",
    [
        ("latency", *QUICK),
        ("calibrate", *FEW, "--batch-size", 1, "--seconds", 0.01, "--held-out", 1),
        ("sensitivity", *FEW, "--batch-size", 1, "--latency-seconds", 0.01, "--eval-images", 1),
        ("search", *tiny.SEARCH, "--batch-size", 1, "--eval-images", 1),
    ],
    ids=lambda words: words[0],
)
def test_the_size_is_that_of_the_test_images_said_and_recorded(not_square, words):
    done = tiny.run(*words, "--workspace", not_square, "--json")
    assert done.code == 0, done.err
    assert "image size: 128x96 (2 images of the test set)" in done.err
    assert done.document["img_size"] == [96, 128]
    runs = tiny.run("status", "--workspace", not_square, "--json").document["runs"]
    (mine,) = [run for run in runs if run["phase"] == words[0]] or [None]
    if mine is not None:
        assert mine["inputs"]["img_size"] == [96, 128]


def test_an_exported_detector_has_the_size_of_the_test_images(not_square, kept_detector, tmp_path):
    out = tmp_path / "detector.kept"
    words = ("--scope", "detector", "--out", out, "--workspace", not_square, "--json")
    done = tiny.run("export", *words)
    assert done.code == 0, done.err
    assert done.document["img_size"] == [96, 128]
    assert done.document["compared"] > 0
    assert done.document["differences"]["boxes"] < 0.01
    assert json.loads((tmp_path / "detector.kept.json").read_text())["input"]["shape"][2:] == [
        96,
        128,
    ]


def test_a_size_that_cannot_be_told_is_asked_for(tmp_path, tiny_config):
    scale = ("--set", "test_dataloader.dataset.pipeline.1.scale=(100,64)")
    words = (*scale, "--set", "embedded_dataset=None", "--workspace", tmp_path / "none")
    done = tiny.run("latency", tiny_config, *words)
    assert done.code == 2
    assert "--img-size" in said_by(done)
    assert not (tmp_path / "none").exists()


def test_a_workspace_that_is_not_there_stops_no_latency_of_a_config(tmp_path, tiny_config):
    done = tiny.run("latency", tiny_config, *QUICK, "--workspace", tmp_path / "none", "--json")
    assert done.code == 0, done.err
    assert done.document["img_size"] == [64, 64]
    assert not (tmp_path / "none").exists()


def test_threads_are_used_said_and_given_back(tmp_path, tiny_config):
    before, environment = torch.get_num_threads(), dict(os.environ)
    cores = os.cpu_count() or 1
    words = ("latency", tiny_config, *QUICK, "--workspace", tmp_path, "--json")
    done = tiny.run(*words, "--threads", cores)
    assert done.code == 0, done.err
    assert done.document["torch_threads"] == cores
    assert torch.get_num_threads() == before
    assert dict(os.environ) == environment


@pytest.mark.parametrize("count", ["0", "-1", "two", "²", "1" * 30, "1.5"])
def test_a_number_of_threads_that_is_none_is_refused(tmp_path, tiny_config, count):
    done = tiny.run("latency", tiny_config, "--workspace", tmp_path, f"--threads={count}")
    assert done.code == 2
    assert "--threads" in said_by(done)
    assert "Traceback" not in done.err


def test_a_number_of_threads_that_was_asked_for_is_part_of_an_execution(monkeypatch):
    plain = Execution()
    assert "threads" not in plain.to_dict()
    monkeypatch.setenv("SPARSEVIT_THREADS", "2")
    assert plain.to_dict()["threads"] == 2
    assert Execution.from_dict(plain.to_dict()) == plain
    assert "threads" not in Execution(device=torch.device("cuda")).to_dict()


def test_a_run_is_not_continued_with_another_number_of_threads(tmp_path):
    assert settled_predictor(tmp_path, lambda: None, threads=2) is None
    assert settled_predictor(tmp_path, lambda: None, threads=2) is None
    # where the number does not matter, as on a GPU
    assert settled_predictor(tmp_path, lambda: None) is None
    with pytest.raises(UserError, match="timed with 2 CPU threads") as raised:
        settled_predictor(tmp_path, lambda: None, threads=1)
    assert "--threads 2" in raised.value.remedy


def test_a_run_of_a_version_that_kept_no_threads_is_continued(tmp_path):
    (tmp_path / "latency.json").write_text('{"latency": "measured"}')
    assert settled_predictor(tmp_path, lambda: None, threads=1) is None


def test_a_python_caller_gets_the_error_of_sizes_too(not_square, tiny_config):
    with pytest.raises(UserError, match="at least one image"):
        sensitivity(workspace=not_square, img_size=(8, 8))


# --- every backend --------------------------------------------------------------------------------


def test_one_table_has_every_backend_or_why_not(tmp_path, tiny_config, monkeypatch):
    from sparsevit.latency.backends import registry

    for name in ("compile", "onnxruntime", "openvino"):
        eager = registry.BACKENDS["eager"]
        monkeypatch.setitem(registry.BACKENDS, name, eager)

    def fails(*_):
        raise RuntimeError("no kernel\nfor this")

    broken = registry.Backend("compile", registry.BACKENDS["eager"].require, fails)
    monkeypatch.setitem(registry.BACKENDS, "compile", broken)
    words = ("latency", tiny_config, *QUICK, "--backend", "all", "--workspace", tmp_path)
    done = tiny.run(*words, "--compare", "--json")
    assert done.code == 0, done.err
    found = {(each["backend"], each["precision"]): each for each in done.document["backends"]}
    assert len(found) == 5 * 3
    assert [row["name"] for row in found["eager", "bf16"]["rows"]] == ["dense"]
    assert found["compile", "fp32"]["missing"] == "failed: RuntimeError: no kernel for this"
    assert "tensorrt" in found["tensorrt", "fp32"]["missing"]
    shown = tiny.run(*words, "--precision", "fp32")
    assert shown.code == 0, shown.err
    assert "Not here:" in shown.out
    assert "compile fp32: failed: RuntimeError: no kernel for this" in shown.out
    assert "openvino" in shown.out
    assert "bf16" not in shown.out


def test_what_a_backend_has_for_a_backbone_only_is_said_with_what_works(tiny_config, monkeypatch):
    openvino = pytest.importorskip("openvino")
    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: ["FP32", "BF16"])
    words = ("latency", tiny_config, "--backend", "openvino", "--scope", "detector")
    done = tiny.run(*words, "--precision", "bf16")
    assert done.code == 2
    said = said_by(done)
    assert "does not support bf16 for a whole detector, only for a backbone" in said
    assert "--precision fp32" in said
    assert "For bf16, use --scope backbone or --backend eager." in said
    # what no part of it has
    said = said_by(tiny.run(*words, "--precision", "fp16"))
    assert "does not support fp16 here: it computes in fp32 only" in said
    assert "Use --precision fp32. For fp16, use --backend eager." in said
