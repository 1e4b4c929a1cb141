"""Any model whose parts answer the three questions, under the names it gives them."""

from __future__ import annotations

import pytest
from torch import nn

from sparsevit.errors import UserError
from sparsevit.methods import Method
from sparsevit.sparsity import Knob, Space
from sparsevit.sparsity.configuration import ConfigurationError
from sparsevit.sparsity.handle import SparseModule, SparsityHandle


class Part(nn.Module):
    """Something with knobs that knows no windows."""

    def __init__(self, *groups):
        super().__init__()
        self.space = Space([Knob(name, group, (0.0, 0.4, 0.8), 1) for name, group in groups])
        self.now = self.space.dense()
        self.times_set = 0

    sparsity_method = Method

    def sparsity_space(self):
        return self.space

    def get_sparsity(self):
        return self.now

    def set_sparsity(self, configuration):
        self.now = configuration
        self.times_set += 1


@pytest.fixture
def model():
    return nn.ModuleDict(
        {
            "backbone": Part(("stages.0", "stages.0"), ("stages.1", "stages.1")),
            "head": nn.Sequential(nn.Linear(2, 2), Part(("heads", "heads"))),
        }
    )


NAMES = ["backbone.stages.0", "backbone.stages.1", "head.1.heads"]


def test_knobs_have_the_names_of_the_modules_they_are_in(model):
    handle = SparsityHandle(model)
    assert list(handle.space.names) == NAMES
    assert dict(handle.get()) == dict.fromkeys(NAMES, 0.0)
    assert isinstance(model["backbone"], SparseModule)


def test_setting_reaches_every_part(model):
    handle = SparsityHandle(model)
    wanted = dict(zip(NAMES, [0.8, 0.0, 0.4], strict=True))
    assert dict(handle.set(wanted)) == wanted
    assert dict(handle.get()) == wanted
    assert dict(model["backbone"].now) == {"stages.0": 0.8, "stages.1": 0.0}
    assert dict(model["head"][1].now) == {"heads": 0.4}


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        dict.fromkeys(NAMES[:2], 0.4),
        dict.fromkeys([*NAMES, "neck"], 0.4),
        {**dict.fromkeys(NAMES, 0.4), NAMES[2]: 1.2},
    ],
    ids=["empty", "one-missing", "one-too-many", "no-ratio"],
)
def test_a_configuration_that_does_not_fit_sets_nothing(model, wrong):
    handle = SparsityHandle(model)
    with pytest.raises(ConfigurationError):
        handle.set(wrong)
    assert model["backbone"].times_set == model["head"][1].times_set == 0


def test_a_sparse_part_may_be_the_model_itself():
    part = Part(("stages.0", "stages.0"))
    assert list(SparsityHandle(part).space.names) == ["stages.0"]


def test_a_wrapper_is_looked_through(model):
    wrapper = nn.Module()
    wrapper.module = model
    assert list(SparsityHandle(wrapper).space.names) == NAMES


def test_a_model_with_nothing_to_skip_is_refused():
    with pytest.raises(UserError, match="Linear has no part") as raised:
        SparsityHandle(nn.Linear(2, 2))
    assert "SparseViT" in raised.value.remedy
