"""What is drawn at an iteration, and what a run starts from."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from mmdet_backbones import small_swin
from mmengine import dist
from torch import nn

from sparsevit.engine.hooks import (
    FirstWeightsHook,
    ProgressHook,
    RandomSparsityHook,
)
from sparsevit.sparsity.handle import SparsityHandle


class Told:
    def __init__(self):
        self.said = []
        self.start = 0

    def advance(self, steps=1, detail=""):
        self.said.append(detail)

    def start_at(self, completed):
        self.start = completed


@pytest.fixture
def runner():
    model = nn.ModuleDict({"backbone": small_swin("SparseViT")})
    return SimpleNamespace(model=model, iter=0, seed=5)


def drawn_by(hook, runner, monkeypatch, rank, iterations=6):
    monkeypatch.setattr(dist, "get_rank", lambda *a: rank)
    hook.before_train(runner)
    handle, seen = SparsityHandle(runner.model), []
    for runner.iter in range(iterations):
        hook.before_train_iter(runner, runner.iter)
        seen.append(handle.get())
    return seen


def test_each_process_draws_its_own_ratios_or_all_the_same(runner, monkeypatch):
    own = [drawn_by(RandomSparsityHook(seed=0), runner, monkeypatch, rank) for rank in (0, 1)]
    assert all(a != b for a, b in zip(*own, strict=True))
    shared = [
        drawn_by(RandomSparsityHook(seed=0, shared=True), runner, monkeypatch, rank)
        for rank in (0, 1)
    ]
    assert shared[0] == shared[1]
    assert len(set(shared[0])) > 1


def test_without_a_seed_the_runners_is_taken(runner, monkeypatch):
    unseeded = drawn_by(RandomSparsityHook(), runner, monkeypatch, 0)
    assert unseeded == drawn_by(RandomSparsityHook(seed=5), runner, monkeypatch, 0)


@pytest.mark.parametrize("when", ["before_val", "after_train"])
def test_validation_and_what_comes_after_are_dense(runner, monkeypatch, when):
    hook = RandomSparsityHook(seed=0)
    drawn_by(hook, runner, monkeypatch, 0)
    getattr(hook, when)(runner)
    assert not any(SparsityHandle(runner.model).get().values())


def test_first_weights_load_at_the_beginning_and_never_after(tmp_path):
    path = tmp_path / "weights.pth"
    trained = small_swin("SparseViT")
    torch.save({"state_dict": trained.state_dict()}, path)
    fresh, said = small_swin("SparseViT"), []
    before = {k: v.clone() for k, v in fresh.state_dict().items()}
    hook = FirstWeightsHook(path, said.append)
    hook.before_train(SimpleNamespace(model=fresh, iter=3))
    assert not said
    assert all(torch.equal(v, before[k]) for k, v in fresh.state_dict().items())
    hook.before_train(SimpleNamespace(model=SimpleNamespace(module=fresh), iter=0))
    assert str(path) in said[0]
    assert all(torch.equal(v, trained.state_dict()[k]) for k, v in fresh.state_dict().items())


def test_progress_shows_the_mean_loss_of_the_last_iterations():
    task = Told()
    hook = ProgressHook(task, window=2)
    assert hook.mean_loss() != hook.mean_loss()
    hook.before_train(SimpleNamespace(iter=7))
    assert task.start == 7
    for loss in (9.0, 1.0, 2.0):
        hook.after_train_iter(SimpleNamespace(), 0, outputs={"loss": torch.tensor(loss)})
    assert hook.mean_loss() == 1.5
    assert task.said[0].startswith("loss 9.000")
    assert task.said[-1].startswith("loss 1.500")
    assert "it/s" in task.said[-1]
