"""Configurations of other ratios that are the same network: timed once, scored once."""

import threading
from collections import Counter

import pytest
from optuna.storages import InMemoryStorage

from sparsevit.report.search import summary_line
from sparsevit.search.candidates import Alike
from sparsevit.search.halving import Halving
from sparsevit.search.read import read_search
from sparsevit.sparsity import Configuration

WINDOWS = 6


def kept(configuration):
    """Of six windows: 0.4 and 0.5 keep the same three."""
    return tuple(int(WINDOWS * (1 - ratio)) for ratio in configuration.values())


ALIKE = Alike(kept, kept)


@pytest.fixture
def as_networks(landscape):
    """The landscape as a function of the windows kept; counts what it is asked."""

    class Asked:
        def __init__(self, function):
            self.function, self.of = function, Counter()

        def __call__(self, configuration, *share):
            self.of[(kept(configuration), *share)] += 1
            ratios = [1 - count / WINDOWS for count in kept(configuration)]
            return self.function(Configuration(zip(configuration, ratios, strict=True)))

    return lambda: {"measure": Asked(landscape.latency), "score": Asked(landscape.score)}


def drawn(result):
    return [trial.configuration for trial in result.trials]


def test_a_network_is_timed_and_scored_once_however_its_ratios_are_written(run_search, as_networks):
    asked = as_networks()
    result = run_search(**asked, alike=ALIKE)
    assert set(asked["score"].of.values()) == {1}
    winner = kept(result.best.configuration)
    assert {network for network, n in asked["measure"].of.items() if n > 1} == {(winner,)}
    first = {}
    for trial in result.trials:
        known = first.setdefault(kept(trial.configuration), trial)
        assert (trial.score, trial.latency_ms) == (known.score, known.latency_ms)
        assert (trial.state == "duplicate") == (trial is not known)
    assert result.same_network == len(set(drawn(result))) - len(first) > 0
    assert f"({result.same_network} of them the same network as another)" in summary_line(result)


def test_the_same_candidates_are_drawn_as_where_networks_are_not_told_apart(
    run_search, as_networks
):
    told = run_search(**as_networks(), alike=ALIKE)
    untold = run_search(**as_networks())
    shorter = min(len(told.trials), len(untold.trials))
    assert drawn(told)[:shorter] == drawn(untold)[:shorter]
    assert told.feasible == untold.feasible
    assert len(told.trials) > len(untold.trials)


@pytest.mark.parametrize("halved", [False, True])
def test_several_workers_come_to_what_one_comes_to(run_search, as_networks, halved):
    def everything():
        asked = as_networks()
        halving = Halving(asked["score"], batch=4) if halved else None
        return {**asked, "alike": ALIKE, "halving": halving}

    alone = run_search(**everything())
    storage, together, asked = InMemoryStorage(), [], everything()
    threads = [
        threading.Thread(target=lambda: together.append(run_search(storage=storage, **asked)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=200)
    assert len(together) == 3
    for result in together:
        assert drawn(result) == drawn(alone)
        assert [(t.state, t.score) for t in result.trials] == [
            (t.state, t.score) for t in alone.trials
        ]
    assert set(asked["score"].of.values()) == {1}


def test_a_study_of_before_networks_were_told_apart_is_gone_on_with(run_search, as_networks):
    storage = InMemoryStorage()
    before = run_search(**as_networks(), storage=storage)
    asked = as_networks()
    after = run_search(**asked, storage=storage, alike=ALIKE, trials=24)
    assert after.trials[: len(before.trials)] == before.trials
    assert after.feasible == 24
    networks = {kept(trial.configuration) for trial in before.trials if trial.score is not None}
    assert not networks & {network for (network,) in asked["score"].of}
    again = run_search(**as_networks(), storage=storage, alike=ALIKE, trials=24)
    assert again.trials == after.trials
    shown = read_search(storage, "max42_min37")
    assert shown.distinct == after.distinct


def test_the_study_knows_how_many_were_the_same_network(run_search, as_networks):
    storage = InMemoryStorage()
    found = run_search(**as_networks(), storage=storage, alike=ALIKE)
    shown = read_search(storage, "max42_min37")
    assert (shown.distinct, shown.same_network) == (found.distinct, found.same_network)


def test_a_search_ends_where_every_network_was_drawn(run_search, as_networks, landscape):
    few = landscape.SPACE.__class__(landscape.SPACE.knobs[:2])
    asked = as_networks()
    result = run_search(
        space=few,
        measure=lambda configuration: float(sum(kept(configuration))),
        score=asked["score"],
        min_ms=0,
        max_ms=1000,
        trials=1000,
        sampler="random",
        alike=ALIKE,
    )
    assert result.stopped == "exhausted"
    assert result.feasible == len({kept(each) for each in few.every()})
