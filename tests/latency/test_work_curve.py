"""A line over work, corrected by what is measured as far as noise lets it be believed."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsevit.latency.work_curve import Node, fit_work_curve

WORKS = [float(work) for work in range(10, 90, 10)]


@given(
    st.dictionaries(
        st.integers(0, 100), st.floats(-1, 1, allow_subnormal=False), min_size=1, max_size=12
    )
)
def test_without_noise_it_goes_through_every_node(changes):
    curve = fit_work_curve([Node(float(work), change, 0.0) for work, change in changes.items()])
    for work, change in changes.items():
        assert curve.at(work) == pytest.approx(change, abs=1e-6)


def test_a_line_in_noise_is_found_better_than_it_was_measured():
    rng = random.Random(0)
    before = after = 0.0
    for _ in range(50):
        nodes = [Node(w, w / 100 - 1 + rng.gauss(0, 0.01), 0.01) for w in WORKS]
        curve = fit_work_curve(nodes)
        before += sum((node.change - (node.work / 100 - 1)) ** 2 for node in nodes)
        after += sum((curve.at(work) - (work / 100 - 1)) ** 2 for work in WORKS)
    assert after < before / 2


def test_steps_larger_than_the_noise_are_kept():
    steps = {work: -(90 - work) // 30 * 0.3 for work in WORKS}
    nodes = [Node(work, change, 0.001) for work, change in steps.items()]
    curve = fit_work_curve(nodes)
    for work, change in steps.items():
        assert curve.at(work) == pytest.approx(change, abs=0.002)


def test_a_node_that_is_less_certain_pulls_less():
    nodes = [Node(w, 0.0, 0.001) for w in WORKS]
    nodes[3] = Node(WORKS[3], 0.1, 0.05)
    assert abs(fit_work_curve(nodes).at(WORKS[3])) < 0.02


def test_between_nodes_it_interpolates():
    curve = fit_work_curve([Node(10, -0.8, 0.0), Node(90, 0.0, 0.0)])
    assert curve.at(50) == pytest.approx(-0.4)


def test_nodes_of_the_same_work_count_as_their_mean():
    curve = fit_work_curve([Node(10, -0.8, 0.1), Node(10, -0.6, 0.1), Node(90, 0.0, 0.1)])
    assert curve.at(10) == pytest.approx(-0.7)


def test_a_single_node_is_a_constant():
    assert fit_work_curve([Node(10, -0.8, 0.1)]).at(50) == -0.8


def test_no_node_is_no_profile():
    with pytest.raises(ValueError, match="node"):
        fit_work_curve([])
