"""A workspace that the version before wrote, and that was moved since.

``version_before`` is what the commands of commit f7e68a1 left of a training on the tests' tiny
config, but for weights, images, logs and the study. Weights are made anew here.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny
import torch
import yaml

from sparsevit.engine.config import load_config
from sparsevit.engine.runner import build_model

WRITTEN = Path(__file__).parent / "version_before"
FOUND = yaml.safe_load((WRITTEN / "best.yaml").read_text())


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    path = Path(shutil.copytree(WRITTEN, tmp_path_factory.mktemp("moved") / "work_dirs"))
    for phase in ("pretrain", "adapt", "finetune"):
        folder = path / phase / "run-001"
        model, _ = build_model(load_config(folder / "config.py"))
        torch.save({"meta": {}, "state_dict": model.state_dict()}, folder / "iter_1.pth")
    return path


def result_of(*words):
    done = tiny.run(*words, "--json")
    assert done.code == 0, done.err
    return done.document


def test_its_status_is_read(workspace):
    runs = result_of("status", "--workspace", workspace)["runs"]
    assert [run["phase"] for run in runs] == ["pretrain", "adapt", "search", "finetune", "evaluate"]
    assert {run["status"] for run in runs} == {"finished"}
    assert runs[2]["metrics"]["sparsity"] == FOUND["sparsity"]


def test_its_config_is_exported_with_the_ratios_it_found(workspace):
    exported = result_of("export-config", "--workspace", workspace)
    assert exported["sparsity"] == FOUND["sparsity"]
    (workspace / "exported.py").write_text(exported["text"], encoding="utf-8")
    cfg = load_config(workspace / "exported.py")
    assert cfg.model.backbone.pruning_ratios == FOUND["pruning_ratios"]
    assert "sparsity" not in cfg
    alone = result_of("export-config", "--workspace", workspace, "--format", "yaml")["text"]
    kept = ("sparsity", "pruning_ratios")
    assert yaml.safe_load(alone) == {name: FOUND[name] for name in kept}


@pytest.mark.parametrize("phase", ["evaluate", "latency"])
def test_its_model_is_evaluated_and_timed_at_the_ratios_it_found(workspace, phase):
    few = ["--eval-images", 2] if phase == "evaluate" else ["--seconds", "0.01"]
    document = result_of(phase, "--workspace", workspace, *few)
    found = document if phase == "evaluate" else document["rows"][0]
    assert found["sparsity"] == FOUND["sparsity"]


def test_a_phase_is_known_to_be_the_same_work_as_before(workspace):
    words = ["finetune", "--workspace", workspace, "--set", "phases.finetune.train_cfg.max_iters=1"]
    result_of(*words, "--eval-images", 1, "--force")
    record = json.loads((workspace / "workspace.json").read_text())
    before, after = (run["inputs"] for run in record["phases"]["finetune"]["runs"])
    assert after["sparsity"] == before["sparsity"]
    assert after["config_sha256"] == before["config_sha256"]
