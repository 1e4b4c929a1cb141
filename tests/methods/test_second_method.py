"""A method that is no part of the package goes through every phase."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest
import tiny
import toy_method
import yaml

import sparsevit
from sparsevit.engine.checkpoint import read_checkpoint
from sparsevit.engine.config import load_config
from sparsevit.engine.runner import build_model
from sparsevit.methods import methods_in
from sparsevit.phases.picture import picture_of_sparsity

KNOBS = [f"backbone.mixes.{n}" for n in range(4)]
# commands in processes of their own import the toy too
PATHS = [str(Path(toy_method.__file__).parent), os.environ.get("PYTHONPATH", "")]
ENVIRONMENT = tiny.user_environment(PYTHONPATH=os.pathsep.join(filter(None, PATHS)))


@pytest.fixture(scope="module")
def phases(tmp_path_factory):
    """What each command said, in one workspace."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "toy.py").write_text(toy_method.CONFIG, encoding="utf-8")
    said = {}
    for words in (
        ["pretrain", folder / "toy.py"],
        ["adapt", "--validate-at", "0.5"],
        ["search", *tiny.SEARCH],
        ["finetune"],
        ["evaluate"],
        ["latency", "--seconds", "0.01", "--compare"],
    ):
        done = tiny.run(*words, "--workspace", folder / "workspace", "--json")
        assert done.code == 0, done.err
        said[words[0]] = done.document
    return said


def state_of(said):
    return read_checkpoint(said["checkpoint"])["sparsity"]["toy"]


def test_its_knobs_are_adapted_searched_and_finetuned(phases):
    assert set(phases["adapt"]["after"]) == {"dense", "uniform 0.5"}
    trials = phases["search"]["search"]["trials"]
    assert all(list(t["configuration"]) == KNOBS for t in trials if t["state"] == "scored")
    found = phases["finetune"]["sparsity"]
    assert list(found) == KNOBS
    assert found == phases["evaluate"]["sparsity"]
    assert dict(load_config(phases["finetune"]["config"]).sparsity) == found


def test_its_state_is_in_the_checkpoints_of_every_training(phases):
    for phase, steps in (("pretrain", 4), ("adapt", 4), ("finetune", 2)):
        state = state_of(phases[phase])
        assert state["steps"] == steps
        assert [len(norms) for norms in state["trained"].values()] == [8, 16, 32, 64]


def test_its_loss_is_in_the_log_and_in_the_sum(phases):
    folder = Path(phases["adapt"]["checkpoint"]).parent
    (scalars,) = folder.glob("*/vis_data/scalars.json")
    logged = [yaml.safe_load(line) for line in scalars.read_text().splitlines()]
    for row in logged:
        if "loss" not in row:
            continue  # scores
        parts = [v for k, v in row.items() if k.startswith("loss_")]
        assert row["loss_toy_size"] > 0
        assert row["loss"] == pytest.approx(sum(parts), rel=1e-4)


def test_its_masks_count_as_work_that_is_not_needed(phases):
    rows = {row["name"]: row for row in phases["latency"]["rows"]}
    batch, (height, width) = phases["latency"]["batch_size"], phases["latency"]["img_size"]
    vain = sum(
        batch * (height // stride) * (width // stride) * size * round(ratio * size)
        for ratio, size, stride in zip(
            rows["sparse"]["sparsity"].values(), (8, 16, 32, 64), (4, 8, 16, 32), strict=True
        )
    )
    assert vain > 0
    assert rows["dense"]["gmacs"] - rows["sparse"]["gmacs"] == pytest.approx(vain / 1e9)


def test_its_picture_is_drawn_at_the_sparsity_of_the_config(phases, tmp_path):
    cfg = load_config(phases["finetune"]["config"])
    model, _ = build_model(cfg)
    assert [type(method) for method in methods_in(model)] == [toy_method.Toy]
    drawn = picture_of_sparsity(cfg, model, tmp_path / "picture")
    kept = [n - round(r * n) for r, n in zip(cfg.sparsity.values(), (8, 16, 32, 64), strict=True)]
    assert drawn.read_text() == " ".join(map(str, kept))


def test_a_training_that_is_killed_goes_on_with_its_state(phases, tmp_path):
    words = ["adapt", phases["pretrain"]["config"], phases["pretrain"]["checkpoint"]]
    words += ["--workspace", tmp_path, "--set", "phases.adapt.train_cfg.max_iters=20"]
    words += ["--validate-at", "", "--no-validate-before", "--eval-images", 1]
    process = tiny.start(*words, env=ENVIRONMENT)
    give_up = time.monotonic() + 120
    try:
        while not (tmp_path / "adapt/run-001/iter_3.pth").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < give_up
            time.sleep(0.005)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    done = tiny.run(*words, "--json")
    assert done.code == 0, done.err
    assert done.document["resumed"] is True
    assert done.document["iterations"] == state_of(done.document)["steps"] == 20


# in two processes weights train in weights/test_weights_in_two_processes.py
@pytest.mark.slow
def test_two_processes_train_it_together(phases, tmp_path):
    words = ["adapt", phases["pretrain"]["config"], phases["pretrain"]["checkpoint"]]
    words += ["--workspace", tmp_path, "--validate-at", "", "--no-validate-before"]
    words += ["--eval-images", 2, "--devices", 2, "--json"]
    done = tiny.run_alone(*words, env=ENVIRONMENT, timeout=280)
    assert done.code == 0, done.err
    assert state_of(done.document)["steps"] == done.document["iterations"] == 4


def test_only_its_own_folder_knows_a_method_by_name():
    package = Path(sparsevit.__file__).parent
    for room in ("phases", "search", "engine", "report", "cli", "workspace"):
        for path in (package / room).rglob("*.py"):
            code = path.read_text(encoding="utf-8")
            assert not re.search(r"methods\.windows|isinstance\([^)]*SparseViT", code), path
