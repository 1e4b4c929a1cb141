"""`--backend` and `--precision` of evaluate and search, through the commands."""

from __future__ import annotations

import sys

import pytest
import tiny
import yaml

from sparsevit.latency.backends import registry
from sparsevit.latency.backends.pytorch import prepare_eager

EVALUATE = ("evaluate", "--eval-images", 2)
SEARCH = ("search", *tiny.SEARCH, "--trials", 1, "--batch-size", 1, "--eval-images", 2)
PACKAGES = {"onnxruntime": "onnxscript", "openvino": "openvino"}


def run(*words):
    done = tiny.run(*words, "--json")
    assert done.code == 0, done.err
    return done.document


def said_by(done):
    return " ".join(" ".join(line.strip("│ ") for line in done.err.splitlines()).split())


@pytest.fixture
def ratios(monkeypatch):
    """OpenVINO without its exports, which take seconds each; the ratios it was prepared at."""
    asked = []

    def prepare_quickly(backbone, images, precision, device):
        asked.append(backbone.pruning_ratios[0][0])
        return prepare_eager(backbone, images, precision, device)

    quick = registry.Backend("openvino", lambda precision, device: None, prepare_quickly)
    monkeypatch.setitem(registry.BACKENDS, "openvino", quick)
    return asked


def inputs_of(workspace, phase):
    runs = [one for one in run("status", "--workspace", workspace)["runs"] if one["phase"] == phase]
    return runs[-1]["inputs"]


def test_a_runtime_scores_as_eager_does(workspace):
    pytest.importorskip("onnxscript")
    here = ("--workspace", workspace)
    eager = run(*EVALUATE, *here)
    there = run(*EVALUATE, *here, "--backend", "onnxruntime")
    assert there["backend"] == "onnxruntime"
    assert (there["precision"], there["scope"]) == ("fp32", "backbone")
    assert there["metrics"] == pytest.approx(eager["metrics"], abs=1e-3)
    assert inputs_of(workspace, "evaluate")["backend"] == "onnxruntime"


def test_people_are_told_what_is_prepared_once_and_what_scored(workspace, ratios):
    # a batch of two images and one of a single image
    words = ("evaluate", "--eval-images", 3, "--workspace", workspace, "--backend", "openvino")
    done = tiny.run(*words)
    assert done.code == 0, done.err
    assert done.err.count("preparing the backbone in openvino for 2 x 64x64") == 1
    assert done.err.count("preparing") == 1
    assert len(ratios) == 2
    assert "3 images of the val split, backbone in openvino fp32" in done.out


@pytest.mark.parametrize("scope", ["backbone", "detector"])
def test_a_precision_is_scored(scope, workspace):
    found = run(*EVALUATE, "--workspace", workspace, "--precision", "bf16", "--scope", scope)
    assert (found["backend"], found["precision"], found["scope"]) == ("eager", "bf16", scope)
    assert "bbox_mAP" in found["metrics"]


def test_a_search_times_in_a_backend_and_everything_says_so(workspace, ratios):
    done = tiny.run(*SEARCH, "--workspace", workspace, "--backend", "openvino", "--json")
    assert done.code == 0, done.err
    assert done.err.count("openvino: ready for a first configuration after") == 1
    # dense, the sparsest, the candidate and, as the best, the candidate again; what follows are
    # uniform ones, of which the one nearest to the interval is shown beside the best
    assert ratios[:2] == [0.0, 0.8]
    assert ratios[2] == ratios[3]
    found = done.document
    assert (found["backend"], found["precision"]) == ("openvino", "fp32")
    best = yaml.safe_load((workspace / "best.yaml").read_text(encoding="utf-8"))
    assert (best["backend"], best["precision"]) == ("openvino", "fp32")
    assert inputs_of(workspace, "search")["backend"] == "openvino"
    # the same search is done; in another backend it is another one
    again = tiny.run(*SEARCH, "--workspace", workspace, "--backend", "openvino")
    assert again.code == 2
    assert "--force" in said_by(again)
    other = run(*SEARCH, "--workspace", workspace)
    assert (other["backend"], other["run"]) != ("openvino", found["run"])


@pytest.mark.parametrize("command", [EVALUATE, SEARCH], ids=["evaluate", "search"])
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--backend", "tflite"), "'eager', 'compile', 'onnxruntime'"),
        (("--backend", "onnxruntime", "--precision", "bf16"), "Use --precision fp32"),
        (
            ("--backend", "openvino", "--precision", "bf16", "--scope", "detector"),
            "Use --precision fp32",
        ),
    ],
)
def test_what_cannot_be_had_is_refused_and_nothing_changes(command, words, says, workspace):
    pytest.importorskip("onnxscript")
    before = tiny.files(workspace)
    done = tiny.run(*command, "--workspace", workspace, *words)
    assert done.code == 2
    assert says in said_by(done)
    assert tiny.files(workspace) == before


@pytest.mark.parametrize("command", [EVALUATE, SEARCH], ids=["evaluate", "search"])
@pytest.mark.parametrize("backend", PACKAGES)
def test_a_runtime_that_is_not_installed_names_its_extra(command, backend, workspace, monkeypatch):
    monkeypatch.setitem(sys.modules, PACKAGES[backend], None)
    before = tiny.files(workspace)
    done = tiny.run(*command, "--workspace", workspace, "--backend", backend)
    assert done.code == 2
    assert "pip install 'sparsevit[" in said_by(done)
    assert tiny.files(workspace) == before


@pytest.mark.parametrize("command", [EVALUATE, SEARCH], ids=["evaluate", "search"])
def test_a_precision_that_the_cpu_has_not_is_refused(command, workspace, monkeypatch):
    openvino = pytest.importorskip("openvino")
    # no CPU of ours lacks bf16 and another's fp16 alike: this one says that it has neither
    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: ["FP32", "INT8"])
    done = tiny.run(
        *command, "--workspace", workspace, "--backend", "openvino", "--precision", "fp16"
    )
    assert done.code == 2
    assert "does not support fp16 here" in said_by(done)
    assert "Use --precision fp32." in said_by(done)
