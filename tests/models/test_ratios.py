"""What a config may say of ratios, and what it may not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsevit.errors import UserError
from sparsevit.models.ratios import nested_ratios
from sparsevit.sparsity.configuration import ConfigurationError

DEPTHS = [2, 2, 6, 2]

ratios = st.floats(0, 1, exclude_max=True)
by_stage = st.lists(ratios, min_size=4, max_size=4)


@pytest.mark.parametrize(
    ("given_as", "expected"),
    [
        (0, [[0.0] * n for n in DEPTHS]),
        (0.5, [[0.5] * n for n in DEPTHS]),
        (np.float32(0.5), [[0.5] * n for n in DEPTHS]),
        ([0.1, 0, 0.3, 0.4], [[0.1] * 2, [0.0] * 2, [0.3] * 6, [0.4] * 2]),
        ((0.1, [0, 0.2], 0.3, (0.4, 0)), [[0.1] * 2, [0.0, 0.2], [0.3] * 6, [0.4, 0.0]]),
    ],
    ids=["zero", "number", "numpy", "by-stage", "mixed"],
)
def test_every_form_gives_one_number_a_block(given_as, expected):
    nested = nested_ratios(given_as, DEPTHS)
    assert nested == expected
    assert all(type(r) is float for stage in nested for r in stage)


@given(by_stage)
def test_a_list_by_stage_means_the_same_for_each_of_its_blocks(stages):
    nested = nested_ratios(stages, DEPTHS)
    assert nested == [[r] * n for r, n in zip(stages, DEPTHS, strict=True)]
    assert nested_ratios(nested, DEPTHS) == nested


@pytest.mark.parametrize("wrong", [1, 1.2, -0.1, float("nan"), float("inf")])
@pytest.mark.parametrize("place", ["all", "stage", "block"])
def test_a_number_that_is_no_share_is_refused(wrong, place):
    form = {
        "all": wrong,
        "stage": [0, 0, wrong, 0],
        "block": [0, 0, [0, 0, 0, 0, wrong, 0], 0],
    }[place]
    with pytest.raises(ConfigurationError, match="share of windows") as raised:
        nested_ratios(form, DEPTHS)
    named = {"all": "[0][0]", "stage": "[2][0]", "block": "[2][4]"}[place]
    assert f"pruning_ratios{named}" in raised.value.problem
    assert "below 1" in raised.value.remedy


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("0.5", "4 stages"),
        (None, "4 stages"),
        (True, "4 stages"),
        ({}, "4 stages"),
        ([], "4 stages"),
        ([0.1] * 3, "4 stages"),
        ([0.1] * 5, "4 stages"),
        ([[0.1] * 2] * 4, "stage 2, which has 6 blocks"),
        ([0.1, "0.1", 0.1, 0.1], "stage 1, which has 2 blocks"),
        ([0.1, None, 0.1, 0.1], "stage 1, which has 2 blocks"),
        ([0.1, [0.1, "half"], 0.1, 0.1], "share of windows"),
        ([0.1, [0.1, True], 0.1, 0.1], "share of windows"),
    ],
)
def test_a_form_that_does_not_fit_says_where(wrong, says):
    with pytest.raises(ConfigurationError, match=says) as raised:
        nested_ratios(wrong, DEPTHS)
    assert isinstance(raised.value, UserError)
    assert raised.value.remedy
