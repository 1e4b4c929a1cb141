"""Random configurations: what an iteration draws, in anybody's loop."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmdet_backbones import small_swin
from torch import nn

from sparsevit.engine.hooks import RandomSparsityHook
from sparsevit.errors import UserError
from sparsevit.sparsity import Space
from sparsevit.sparsity.handle import SparsityHandle
from sparsevit.sparsity.random import RandomSparsity, configuration_at

SPACE = Space.staged([2, 2, 6, 2])


@given(seed=st.integers(0, 2**31), iteration=st.integers(0, 10**6), rank=st.integers(0, 63))
def test_a_draw_depends_on_seed_iteration_and_rank_alone(seed, iteration, rank):
    drawn = configuration_at(SPACE, seed, iteration, rank)
    assert drawn == configuration_at(SPACE, seed, iteration, rank)
    assert drawn == SPACE.validate(drawn, strict=True)


def test_draws_differ_between_iterations_ranks_and_seeds():
    for varied in (
        [configuration_at(SPACE, 0, i) for i in range(50)],
        [configuration_at(SPACE, 0, 0, rank) for rank in range(50)],
        [configuration_at(SPACE, seed, 0) for seed in range(50)],
    ):
        assert len(set(varied)) > 40


@pytest.fixture
def model():
    return nn.ModuleDict({"backbone": small_swin("SparseViT")})


def test_a_loop_of_ones_own_draws_what_adapt_draws(model):
    random, handle = RandomSparsity(model, seed=3), SparsityHandle(model)
    own = []
    for _ in range(5):
        drawn = random()
        assert handle.get() == drawn
        own.append(drawn)
    assert random.step == 5

    hook = RandomSparsityHook(seed=3)
    runner = SimpleNamespace(model=model, iter=0, seed=0)
    hook.before_train(runner)
    for runner.iter, drawn in enumerate(own):
        hook.before_train_iter(runner, runner.iter)
        assert handle.get() == drawn
    assert not any(random.dense().values())
    assert not any(handle.get().values())


def test_a_loop_that_is_resumed_draws_what_it_would_have_drawn(model):
    whole = RandomSparsity(model)
    drawn = [whole() for _ in range(4)]
    resumed = RandomSparsity(model)
    resumed.step = 2
    assert [resumed(), resumed()] == drawn[2:]


def test_processes_draw_their_own_or_share_one(model):
    own = [RandomSparsity(model, rank=rank)() for rank in (0, 1)]
    shared = [RandomSparsity(model, rank=rank, shared=True)() for rank in (0, 1)]
    assert own[0] != own[1]
    assert own[0] == RandomSparsity(model)()
    assert shared[0] == shared[1]


def test_a_model_with_nothing_to_skip_is_refused():
    with pytest.raises(UserError):
        RandomSparsity(nn.Linear(2, 2))
