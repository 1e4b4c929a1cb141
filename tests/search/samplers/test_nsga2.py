"""NSGA-II: fronts by definition, and a whole front found."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsevit.errors import UserError
from sparsevit.search.samplers import make_sampler
from sparsevit.search.samplers.nsga2 import by_fitness, fronts
from sparsevit.search.seen import Seen
from sparsevit.sparsity import Space

points = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=20)


def beats(one, other):
    return all(a >= b for a, b in zip(one, other, strict=True)) and one != other


@given(points)
def test_a_front_is_what_only_those_of_fronts_before_beat(points):
    found = fronts(points)
    assert sorted(index for front in found for index in front) == list(range(len(points)))
    for number, front in enumerate(found):
        for index in front:
            beaten_by = {i for i, point in enumerate(points) if beats(point, points[index])}
            assert beaten_by <= {i for before in found[:number] for i in before}
            if number:
                assert beaten_by & set(found[number - 1])


@given(points)
def test_the_fittest_come_front_by_front(points):
    order = by_fitness(points)
    place = {index: number for number, front in enumerate(fronts(points)) for index in front}
    assert [place[index] for index in order] == sorted(place.values())


def test_of_a_front_the_ends_and_those_with_room_come_first():
    order = by_fitness([(0, 10), (1, 9), (1.5, 8.5), (6, 4), (10, 0)])
    assert set(order[:2]) == {0, 4}
    assert order[2] == 3
    assert order[-1] == 1


def latency(configuration):
    return 100 - 80 * configuration.mean()


def score(configuration):
    first, *others = configuration.values()
    return 40 - 10 * first**2 - sum(ratio**2 for ratio in others)


def area(seen):
    """Of what the candidates beat, below score 40 and above latency 36."""
    covered, reached = 0.0, 30.0
    for s in sorted(seen, key=lambda s: s.latency_ms):
        if s.score > reached:
            covered += (s.score - reached) * (100 - s.latency_ms)
            reached = s.score
    return covered


def test_the_front_is_found_better_than_by_random_draws():
    space = Space.staged((2, 2, 4, 2))
    covered = {}
    for name in ("nsga2", "random"):
        covered[name] = 0
        for seed in range(3):
            sampler = make_sampler(name, space, seed)
            before = []
            for number in range(120):
                drawn = sampler.draw(sampler.rng(number), before)
                before.append(Seen(drawn, latency(drawn), True, score(drawn)))
            covered[name] += area(before)
    assert covered["nsga2"] > covered["random"]


def test_infeasible_candidates_do_not_breed():
    space = Space.staged((2, 2))
    rng = random.Random(0)
    sampler = make_sampler("nsga2", space, 0, population=4, mutation_prob=0)
    good, other = space.min(), space.sorted({"stages.0": 0.1, "stages.1": 0.1})
    before = [
        Seen(good, 50.0, True, 1.0),
        Seen(other, 45.0, True, 0.5),
        Seen(space.max(), 10.0, False),
        Seen(space.uniform(0.7), 12.0, False),
    ]
    for number in range(4, 6):
        drawn = sampler.draw(sampler.rng(number), before)
        assert set(drawn.values()) <= {0.0, 0.1}
    assert sampler.draw(rng, before[:3]) is not None


@pytest.mark.parametrize(
    "options", [{"population": 1}, {"mutation_prob": 2}, {"crossover_prob": -1}]
)
def test_options_of_nsga2_that_do_not_fit_are_refused(options):
    with pytest.raises(UserError):
        make_sampler("nsga2", Space.staged((2, 2)), **options)
