"""Knobs and changes in few characters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsevit.report.ratios import short_names, signed


@given(st.lists(st.floats(-9999, 9999), max_size=20))
def test_changes_take_five_characters_and_as_many_decimals(values):
    texts = signed(values)
    assert all(len(text) <= 5 for text in texts)
    assert len({len(text.partition(".")[2]) for text in texts}) <= 1
    for text, value in zip(texts, values, strict=True):
        assert float(text) == pytest.approx(value, abs=0.5)


def test_decimals_fall_as_numbers_grow():
    assert signed([0.126, -3]) == ["+0.13", "-3.00"]
    assert signed([9.996, -3]) == ["+10.0", "-3.0"]
    assert signed([123.4]) == ["+123"]


def test_the_module_that_all_lie_in_is_left_out():
    assert short_names(["backbone.stages.0", "backbone.stages.1"]) == ["stages.0", "stages.1"]
    assert short_names(["a.x", "b.x"]) == ["a.x", "b.x"]
    assert short_names(["a", "b"]) == ["a", "b"]
