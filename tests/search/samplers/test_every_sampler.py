"""What holds for every sampler: valid draws, in the interval, the same again, whoever asks."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsevit.search.samplers import SAMPLERS, make_sampler
from sparsevit.search.seen import Seen
from sparsevit.sparsity import Knob, Space

SPACE = Space(
    [
        Knob("one", "one", (0, 0.2, 0.4, 0.8)),
        Knob("two_1", "two", (0, 0.3, 0.6)),
        Knob("two_2", "two", (0.1, 0.3, 0.7)),
        Knob("three", "three", (0.5,)),
    ]
)
LARGE = Space.staged((2, 2, 12, 2), prefix="backbone.stages")
# Quick to leave the random start, so that what comes after it is tested.
EARLY = {
    "evolution": {"population": 6, "parents": 3},
    "random": {},
    "tpe": {"startup": 4},
    "nsga2": {"population": 6},
    "guided": {"startup": 4},
}
EIGHT_ARE_ENOUGH = {"nsga2": {"population": 4}}
NAMES = sorted(SAMPLERS)


def latency(configuration):
    return 100 - sum((10 + 7 * place) * r for place, r in enumerate(configuration.values()))


def score(configuration):
    return 40 - sum((place % 3) * r**2 for place, r in enumerate(configuration.values()))


def settle(configuration, interval):
    latency_ms = latency(configuration)
    feasible = interval[0] <= latency_ms <= interval[1]
    return Seen(configuration, latency_ms, feasible, score(configuration) if feasible else None)


def drawn_by(sampler, count, interval=(0, 200)):
    """The first candidates, as a search draws them with one worker."""
    before = []
    for number in range(count):
        before.append(settle(sampler.draw(sampler.rng(number), before), interval))
    return before


def test_every_sampler_has_options_here():
    assert sorted(EARLY) == NAMES


@settings(deadline=None, max_examples=8)
@given(st.sampled_from(NAMES), st.integers(0, 1000), st.floats(70, 95), st.booleans())
def test_every_draw_is_a_configuration_of_the_space(name, seed, low, predicted):
    interval = (low, low + 8)
    sampler = make_sampler(
        name, SPACE, seed, interval=interval, predict=latency if predicted else None, **EARLY[name]
    )
    there_are_some = any(low <= latency(c) <= low + 8 for c in SPACE.every())
    for seen in drawn_by(sampler, 14, interval):
        assert seen.configuration in SPACE
        if predicted and there_are_some:
            assert seen.feasible


@pytest.mark.parametrize("name", NAMES)
def test_a_large_space_is_drawn_from_within_the_interval(name):
    interval = (60, 62)
    sampler = make_sampler(name, LARGE, 0, interval=interval, predict=half, **EARLY[name])
    for number in range(8):
        before = drawn_before(sampler, number, interval)
        drawn = sampler.draw(sampler.rng(number), before)
        assert drawn in LARGE
        assert interval[0] <= half(drawn) <= interval[1]


def half(configuration):
    return 100 - 80 * configuration.mean()


def drawn_before(sampler, count, interval):
    rng = random.Random(7)
    found = [sampler.feasible.draw(rng, lambda: LARGE.sample(rng)) for _ in range(count)]
    return [Seen(c, half(c), True, score(c)) for c in found]


@pytest.mark.parametrize("name", NAMES)
def test_a_new_sampler_goes_on_as_the_old_one_would(name):
    """Nothing but the seed, the number and the candidates before says what is drawn."""
    interval = (70, 90)

    def made():
        return make_sampler(name, SPACE, 3, interval=interval, **EARLY[name])

    old = drawn_by(made(), 16, interval)
    for number in (0, 5, 11, 15):
        assert made().draw(made().rng(number), old[:number]) == old[number].configuration
    # also one that was last asked about other candidates
    used = made()
    drawn_by(make_sampler(name, SPACE, 4, **EARLY[name]), 3)
    used.draw(used.rng(9), drawn_by(make_sampler("random", SPACE, 9), 9))
    assert used.draw(used.rng(15), old[:15]) == old[15].configuration


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_settled_yet_never_changes_a_draw(name):
    """With a lag or without: it is the same as with all settled, or waits."""
    for options in ({}, {"lag": 3}) if name in ("tpe", "guided") else ({},):
        sampler = make_sampler(name, SPACE, 0, **EARLY[name], **options)
        full = drawn_by(sampler, 12)
        waits = 0
        for number in range(1, 12):
            for pending in range(1, 4):
                before = full[:number]
                for place in range(max(0, number - pending), number):
                    before[place] = Seen(before[place].configuration)
                early = sampler.draw(sampler.rng(number), before)
                waits += early is None
                assert early in (None, full[number].configuration)
        assert (waits == 0) == (name == "random" or "lag" in options)


@pytest.mark.parametrize("name", ["tpe", "nsga2", "guided"])
def test_nothing_is_drawn_twice_while_there_is_something_new(name):
    interval = (80, 90)
    inside = [c for c in SPACE.every() if interval[0] <= latency(c) <= interval[1]]
    sampler = make_sampler(name, SPACE, 0, interval=interval, predict=latency, **EARLY[name])
    drawn = [seen.configuration for seen in drawn_by(sampler, len(inside), interval)]
    assert set(drawn) == set(inside)
    again = sampler.draw(sampler.rng(len(inside)), [settle(c, interval) for c in drawn])
    assert again in SPACE


@pytest.mark.parametrize("name", ["tpe", "guided"])
def test_samplers_with_a_model_beat_random_draws(name):
    space = Space.staged((2, 2, 2, 2))
    interval = (70, 80)
    gained = 0
    for seed in range(4):
        best = {}
        for which in (name, "random"):
            sampler = make_sampler(which, space, seed, interval=interval, predict=latency)
            best[which] = max(seen.score for seen in drawn_by(sampler, 30, interval))
        gained += best[name] - best["random"]
    assert gained > 0


@pytest.mark.parametrize("name", NAMES)
def test_seeds_and_options_tell_samplers_apart(name):
    descriptions = [
        make_sampler(name, SPACE, 0).describe(),
        make_sampler(name, SPACE, 1).describe(),
    ]
    if EARLY[name]:
        descriptions.append(make_sampler(name, SPACE, 0, **EARLY[name]).describe())
    assert all(found["name"] == name for found in descriptions)
    assert all(descriptions.count(found) == 1 for found in descriptions)


@pytest.mark.parametrize("name", ["tpe", "nsga2", "guided"])
def test_the_score_of_a_candidate_that_was_stopped_early_is_not_learned_from(name):
    sampler = make_sampler(name, SPACE, 0, **{**EARLY[name], **EIGHT_ARE_ENOUGH.get(name, {})})
    before = drawn_by(sampler, 8)
    stopped = replace(before[-1], score=1000.0, share=0.25)
    other = replace(stopped, score=-1000.0)
    draws = {sampler.draw(sampler.rng(8), [*before[:-1], last]) for last in (stopped, other)}
    assert len(draws) == 1
