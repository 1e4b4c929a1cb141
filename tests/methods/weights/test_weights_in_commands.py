"""SViTE through the commands: nothing but its config is its own."""

from __future__ import annotations

import signal
import time

import pytest
import svite_config
import tiny
import torch

from sparsevit.engine.checkpoint import read_checkpoint
from sparsevit.engine.config import load_config
from sparsevit.sparsity.weights import prunable

STRUCTURED = {"heads": 0.5, "neurons": 0.5, "update_interval": 1}
UNSTRUCTURED = {"density": 0.5, "update_interval": 1, "tokens": 0.75}


def written(folder, options):
    path = folder / "sparse.py"
    path.write_text(svite_config.config(**options), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def phases(tmp_path_factory):
    """What each command said, in one workspace."""
    folder = tmp_path_factory.mktemp("svite")
    said = {}
    for words in (
        ["pretrain", written(folder, UNSTRUCTURED)],
        ["evaluate"],
        ["finetune"],
        ["latency", "--seconds", "0.01"],
        ["status"],
    ):
        done = tiny.run(*words, "--workspace", folder / "workspace", "--json")
        assert done.code == 0, done.err
        said[words[0]] = done.document
    return said


def test_what_is_written_is_as_sparse_as_asked(phases):
    for phase in ("pretrain", "finetune"):
        saved = read_checkpoint(phases[phase]["checkpoint"])
        state = saved["sparsity"]["weights"]
        assert state["updates"] == (3 if phase == "pretrain" else 1)
        weights = {n: w for n, w in saved["state_dict"].items() if prunable(n, w.shape)}
        assert set(weights) == set(state["masks"])
        alive = sum(int(mask.sum()) for mask in state["masks"].values())
        assert alive == pytest.approx(sum(w.numel() for w in weights.values()) / 2, rel=1e-3)
        # the average that is saved too
        assert not any(w[~state["masks"][name]].any() for name, w in weights.items())


def test_the_ratios_are_those_of_the_config(phases):
    wanted = {"backbone.weights": 0.5, "backbone.tokens": 0.25}
    assert phases["evaluate"]["sparsity"] == wanted
    assert phases["finetune"]["sparsity"] == wanted
    assert dict(load_config(phases["finetune"]["config"]).sparsity) == wanted
    assert 0 <= phases["evaluate"]["metrics"]["top1"] <= 100


def test_status_and_latency_say_what_is_really_left(phases):
    cost = phases["status"]["runs"][-1]["metrics"]["cost"]
    timed = phases["latency"]
    # what grew in the last step is still zero in one, and has an average in the other
    assert cost["parameters"] == pytest.approx(timed["parameters"], rel=0.01)
    of_an_image = timed["rows"][-1]["gmacs"] / timed["batch_size"]
    assert cost["gmacs"] == pytest.approx(of_an_image, rel=0.01)
    assert 0.5 < cost["parameters"] / cost["of_parameters"] < 0.6
    assert cost["gmacs"] < cost["of_gmacs"]


def test_finetuning_keeps_what_was_alive(phases):
    before = read_checkpoint(phases["pretrain"]["checkpoint"])
    after = read_checkpoint(phases["finetune"]["checkpoint"])
    assert before["sparsity"].keys() == after["sparsity"].keys()


def test_a_training_that_is_killed_goes_on_with_its_masks(tmp_path):
    words = ["pretrain", written(tmp_path, STRUCTURED), "--workspace", tmp_path / "workspace"]
    words += ["--set", "train_cfg.max_iters=12", "--eval-images", 1]
    process = tiny.start(*words, env=tiny.user_environment())
    give_up = time.monotonic() + 280
    try:
        while not (tmp_path / "workspace/pretrain/run-001/iter_4.pth").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < give_up
            time.sleep(0.01)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    done = tiny.run(*words, "--json")
    assert done.code == 0, done.err
    assert done.document["resumed"] is True
    state = read_checkpoint(done.document["checkpoint"])["sparsity"]["weights"]
    assert state["updates"] == 9
    assert all(int(kept.sum()) == len(kept) // 2 for kept in state["kept"].values())
    weights = read_checkpoint(done.document["checkpoint"])["state_dict"]
    for name, kept in state["kept"].items():
        if name.endswith("neurons"):
            rows = weights[f"{name.removesuffix('neurons')}ffn.layers.0.0.weight"]
            assert torch.equal((rows != 0).any(dim=1), kept)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"density": 0}, "svite.density is 0"),
        ({"density": 1.2}, "svite.density is 1.2"),
        ({"density": 0.5, "update_interval": 0}, "svite.update_interval is 0"),
        ({"heads": 0.1, "neurons": 0.5}, "keeps none"),
    ],
)
def test_wrong_options_are_told_in_words(tmp_path, options, said):
    done = tiny.run("pretrain", written(tmp_path, options), "--workspace", tmp_path / "workspace")
    assert done.code == 2
    assert said in " ".join(done.err.split())
    assert "Traceback" not in done.err


def test_a_structured_model_becomes_a_smaller_one_with_the_same_metrics(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space = ("--workspace", tmp_path / "workspace", "--json")
    done = tiny.run("pretrain", written(tmp_path, STRUCTURED), *space)
    assert done.code == 0, done.err
    done = tiny.run("convert", *space)
    assert done.code == 0, done.err
    said = done.document
    assert said["parameters"] < said["parameters_before"]
    assert said["difference"] < 1e-5
    # the first of two heads, 16 of 32 neurons
    widths = load_config(said["config"]).model.backbone.widths
    assert widths == {"heads": [1, 1], "neurons": [16, 16]}
    whole = tiny.run("evaluate", *space)
    assert whole.code == 0, whole.err
    smaller = tiny.run("evaluate", said["config"], said["weights"], *space)
    assert smaller.code == 0, smaller.err
    assert smaller.document["metrics"] == whole.document["metrics"]
    again = tiny.run("convert", *space)
    assert again.code == 2
    assert "already exists" in again.err


def test_a_model_from_which_nothing_can_be_taken_is_refused(phases, tmp_path):
    words = ["convert", phases["pretrain"]["config"], phases["pretrain"]["checkpoint"]]
    done = tiny.run(*words, "--out", tmp_path / "small.pth", "--workspace", tmp_path)
    assert done.code == 2
    assert "nothing can be taken out" in " ".join(done.err.split())
    assert not (tmp_path / "small.pth").exists()
