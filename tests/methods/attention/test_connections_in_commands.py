"""Connections through the commands: every phase, a training that goes on, exports."""

from __future__ import annotations

import pytest
import tiny
import torch

from sparsevit.engine.checkpoint import read_checkpoint
from sparsevit.engine.config import load_config

OWN = """\
_base_ = "tiny.py"
model = dict(
    backbone=dict(
        _delete_=True, type="Sparsifiner", architecture="lvvit", img_size=64, patch_size=8,
        num_classes=5, embed_dims=16, depth=2, num_heads=2, mlp_ratio=3,
        sparsifiner=dict(first_stage=0.5),
    ),
    head=dict(_delete_=True, type="LogitsHead", num_classes=5),
)
"""


def written(folder, text=tiny.SPARSIFINER, name="tiny.py"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def phases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sparsifiner")
    said = {}
    for words in (
        ["pretrain", written(folder)],
        ["adapt"],
        ["sensitivity", "--eval-images", "2", "--latency-seconds", "0.01"],
        ["search", *tiny.SEARCH],
        ["finetune"],
        ["evaluate"],
        ["latency", "--seconds", "0.01"],
        ["status"],
    ):
        done = tiny.run(*words, "--workspace", folder / "workspace", "--json")
        assert done.code == 0, done.err
        said[words[0]] = done.document
    return folder, said


def test_pretraining_is_dense_and_leaves_the_predictors(phases):
    _, said = phases
    saved = read_checkpoint(said["pretrain"]["checkpoint"])
    assert "connections" not in saved.get("sparsity", {})
    adapted = read_checkpoint(said["adapt"]["checkpoint"])
    teacher = adapted["sparsity"]["connections"]["teacher"]
    assert all(torch.equal(saved["state_dict"][name], one) for name, one in teacher.items())
    name = "backbone.layers.0.attn.mask_predictor.proj_n"
    assert not torch.equal(saved["state_dict"][name], adapted["state_dict"][name])


def test_layers_are_knobs_in_every_phase(phases):
    _, said = phases
    knobs = {"backbone.layers.0", "backbone.layers.1"}
    found = said["finetune"]["sparsity"]
    assert set(found) == knobs == set(said["evaluate"]["sparsity"])
    assert set(found.values()) <= {0.0, 0.5, 0.75}
    assert dict(load_config(said["finetune"]["config"]).sparsity) == found
    responses = said["sensitivity"]["sensitivity"]["responses"]
    assert {response["knob"] for response in responses} == knobs


def test_a_whole_model_of_ours_trains_too(tmp_path):
    written(tmp_path)
    config = written(tmp_path, OWN, "own.py")
    for words in (["pretrain", config], ["adapt", "--validate-at", "0.5"]):
        done = tiny.run(*words, "--workspace", tmp_path / "ws", "--json")
        assert done.code == 0, done.err
        assert 0 <= done.document["after"]["dense"]["top1"] <= 100


@pytest.mark.slow
def test_two_processes_train_both_stages_together(tmp_path):
    words = ("pretrain", written(tmp_path), "--workspace", tmp_path / "ws")
    assert tiny.run(*words).code == 0
    words = ("adapt", "--devices", 2, "--workspace", tmp_path / "ws", "--json")
    done = tiny.run_alone(*words, env=tiny.user_environment(), timeout=280)
    assert done.code == 0, done.err
    scored = tiny.run("evaluate", "--dense", "--workspace", tmp_path / "ws", "--json")
    assert scored.document["metrics"] == done.document["after"]["dense"]


@pytest.mark.parametrize("suffix", ["onnx", "xml", pytest.param("pt2", marks=pytest.mark.slow)])
def test_what_is_exported_gives_what_eager_gives(phases, tmp_path, suffix):
    folder, _ = phases
    done = tiny.run(
        *("export", "--workspace", folder / "workspace"),
        *("--out", tmp_path / f"model.{suffix}", "--json"),
    )
    assert done.code == 0, done.err
    assert max(done.document["differences"].values()) < 1e-4
