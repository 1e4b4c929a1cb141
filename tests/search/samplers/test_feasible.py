"""Drawing within the interval: never outside where anything lies within."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsevit.search.samplers.feasible import SMALL_SPACE, Feasible, neighbours
from sparsevit.sparsity import Knob, Space

SMALL = Space.staged((2, 4, 2), choices=(0, 0.2, 0.5, 0.8))
LARGE = Space.staged((2, 2, 18, 2), prefix="backbone.stages")


def additive(space, savings):
    """Latency as a calibrated predictor has it: so much of 100 ms for each knob."""
    return lambda configuration: (
        100
        - sum(
            saving * configuration[name] for name, saving in zip(space.names, savings, strict=True)
        )
    )


@settings(deadline=None)
@given(
    st.lists(st.floats(1, 20), min_size=4, max_size=4),
    st.floats(50, 110),
    st.floats(0, 10),
    st.integers(),
)
def test_a_draw_lies_in_the_interval_where_any_configuration_does(savings, low, width, seed):
    feasible = Feasible(SMALL, (low, low + width), additive(SMALL, savings))
    rng = random.Random(seed)
    drawn = feasible.draw(rng, lambda: SMALL.sample(rng))
    assert drawn in SMALL
    there_are_some = any(c in feasible for c in SMALL.every())
    assert (drawn in feasible) == there_are_some
    assert feasible.all == tuple(c for c in SMALL.every() if c in feasible)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(2, 8), min_size=12, max_size=12), st.floats(0, 1), st.integers())
def test_a_large_space_is_walked_into_a_narrow_interval(savings, place, seed):
    predict = additive(LARGE, savings)
    fastest = predict(LARGE.max())
    target = fastest + place * (100 - fastest)
    feasible = Feasible(LARGE, (target - 0.5, target + 0.5), predict)
    assert LARGE.size() > SMALL_SPACE
    assert feasible.all is None
    rng = random.Random(seed)
    near = feasible.nearest(rng, LARGE.sample(rng))
    assert near in LARGE
    assert near in feasible


def test_what_is_proposed_within_the_interval_is_taken_as_it_is():
    feasible = Feasible(SMALL, (0, 1000), additive(SMALL, (1, 1, 1, 1)))
    proposed = SMALL.sample(random.Random(0))
    assert feasible.draw(random.Random(0), lambda: proposed) is proposed


def test_the_nearest_of_the_interval_is_taken():
    feasible = Feasible(SMALL, (0, 99), additive(SMALL, (2, 0, 0, 100)))
    near = feasible.nearest(random.Random(0), SMALL.dense())
    assert near == {**SMALL.dense(), "stages.2": 0.2}


def test_an_interval_that_nothing_reaches_still_gives_a_configuration_of_the_space():
    for space in (SMALL, LARGE):
        feasible = Feasible(space, (500, 600), additive(space, [1] * len(space)))
        assert feasible.nearest(random.Random(0), space.max()) in space


@pytest.mark.parametrize("seed", range(5))
def test_neighbours_differ_in_one_knob_by_one_choice_and_keep_the_rule(seed):
    space = Space([Knob("a", "s", (0, 0.3, 0.4)), Knob("b", "s", (0.3, 0.8)), Knob("c", "t")])
    configuration = space.sample(random.Random(seed))
    found = neighbours(space, configuration)
    expected = []
    for other in space.every():
        moved = [knob for knob in space.knobs if other[knob.name] != configuration[knob.name]]
        if len(moved) == 1:
            choices = moved[0].choices
            places = [choices.index(c[moved[0].name]) for c in (other, configuration)]
            if abs(places[0] - places[1]) == 1:
                expected.append(other)
    assert set(found) == set(expected)
