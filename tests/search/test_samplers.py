"""Samplers: faithful to the paper's script, and what they refuse."""

import random
from dataclasses import replace

import pytest

from sparsevit.errors import UserError
from sparsevit.search.samplers import (
    EvolutionSampler,
    RandomSampler,
    SpaceSampler,
    distributions,
    make_sampler,
)
from sparsevit.search.seen import Seen
from sparsevit.sparsity import Knob, Space

# Below: the bookkeeping of the paper's tools/search.py, written anew without Optuna.
CHOICES = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]


def plain_sample(names, rng):
    config = {name: rng.choice(CHOICES) for name in names}
    return plain_sort(config)


def plain_sort(config):
    stage = sorted(name for name in config if name[-2] == "_")
    values = sorted(config[name] for name in stage)
    return {**config, **dict(zip(stage, values, strict=True))}


def plain_evolution(names, latency, score, interval, iterations, population_size, parents, seed):
    """Yields (config, metric) for every iteration; the metric is None where it is infeasible."""
    population, candidates, samples = [], [], {}
    for iteration in range(iterations):
        rng = random.Random(f"{seed}:{iteration}")
        if len(population) >= population_size:
            candidates = sorted(population, key=lambda x: x["metric"], reverse=True)[:parents]
            population = []
        if not candidates:
            config = plain_sample(names, rng)
        elif len(population) < population_size // 2:
            parent = rng.choice(candidates)
            config = plain_sample(names, rng)
            for name in names:
                if rng.random() > 0.1:
                    config[name] = parent["config"][name]
            config = plain_sort(config)
        else:
            pair = rng.sample(candidates, 2)
            config = plain_sort({name: rng.choice(pair)["config"][name] for name in names})
        key = tuple(config.items())
        if key not in samples:
            satisfied = interval[0] <= latency(config) <= interval[1]
            samples[key] = score(config) if satisfied else None
        if samples[key] is not None:
            population.append({"config": config, "metric": samples[key]})
        yield config, samples[key]


@pytest.mark.parametrize(("population", "parents", "iterations"), [(100, 25, 700), (8, 3, 200)])
def test_evolution_goes_the_way_of_the_papers_script(
    run_search, landscape, population, parents, iterations
):
    expected = list(
        plain_evolution(
            landscape.SPACE.names,
            landscape.latency,
            landscape.score,
            (landscape.MIN_MS, landscape.MAX_MS),
            iterations,
            population,
            parents,
            seed=7,
        )
    )
    sampler = EvolutionSampler(landscape.SPACE, 7, population=population, parents=parents)
    result = run_search(sampler=sampler, trials=10_000, max_candidates=iterations)
    drawn = [(trial.configuration.to_dict(), trial.score) for trial in result.trials]
    assert drawn == expected
    assert any(trial.state == "duplicate" and trial.feasible for trial in result.trials)


def test_evolution_beats_random_at_equal_scored_trials(run_search, landscape):
    space = landscape.SPACE
    optimum = 38.785
    regrets = {"evolution": [], "random": []}
    for seed in range(8):
        for name, found in regrets.items():
            sampler = make_sampler(name, space, seed)
            result = run_search(sampler=sampler, trials=200, confirm_best=False)
            found.append(optimum - result.best.score)
    assert min(regrets["evolution"]) >= -1e-9
    better = [
        evolved < drawn
        for evolved, drawn in zip(regrets["evolution"], regrets["random"], strict=True)
    ]
    assert sum(better) >= 6
    assert sum(regrets["evolution"]) < 0.6 * sum(regrets["random"])


def test_the_first_generation_is_random(run_search, landscape):
    evolved = run_search(sampler=EvolutionSampler(landscape.SPACE, 3), trials=60)
    drawn = run_search(sampler=RandomSampler(landscape.SPACE, 3), trials=60)
    assert evolved.trials == drawn.trials


def test_the_share_of_mutation_is_an_option(run_search, landscape):
    """Without mutation every knob is one that two parents had, up to the sorting of a stage."""
    space = Space.staged((2, 2, 2, 2), prefix="backbone.stages")
    sampler = EvolutionSampler(space, 0, population=10, parents=3, mutation_share=0)
    result = run_search(
        space=space,
        sampler=sampler,
        measure=lambda _: 40.0,
        score=lambda c: -sum(ratio * (index + 1) for index, ratio in enumerate(c.values())),
        trials=10_000,
        max_candidates=20,
    )
    first, second = result.trials[:10], result.trials[10:]
    parents = sorted(first, key=lambda trial: trial.score, reverse=True)[:3]
    for trial in second:
        for name in space.names:
            assert trial.configuration[name] in {p.configuration[name] for p in parents}


def test_seeds_draw_different_configurations(run_search, landscape):
    one, two = (run_search(sampler=RandomSampler(landscape.SPACE, seed)) for seed in (0, 1))
    assert one.trials[0].configuration != two.trials[0].configuration


def test_distributions_hold_exactly_the_choices():
    space = Space.staged((2, 2)) + Space(
        [Knob("uneven", "uneven", (0, 0.1, 0.5)), Knob("single", "single", (0.3,))]
    )
    found = distributions(space)
    stepped = found["stages.0"]
    assert (stepped.low, stepped.high, stepped.step) == (0, 0.8, 0.1)
    assert found["uneven"].choices == (0, 0.1, 0.5)
    assert found["single"].single()


@pytest.mark.parametrize(
    "options",
    [
        {"parents": 1},
        {"parents": 30, "population": 20},
        {"mutation_prob": 1.5},
        {"mutation_share": -0.1},
    ],
)
def test_options_that_do_not_fit_are_refused(landscape, options):
    with pytest.raises(UserError):
        make_sampler("evolution", landscape.SPACE, **options)


def test_an_unknown_sampler_is_answered_with_those_that_there_are(landscape):
    with pytest.raises(UserError, match="evolution, random"):
        make_sampler("evolutoin", landscape.SPACE)
    assert isinstance(make_sampler("random", landscape.SPACE), SpaceSampler)


def test_what_is_not_known_yet_never_changes_what_evolution_draws(landscape):
    """With some of the candidates before unsettled it draws the same, or waits."""
    sampler = EvolutionSampler(landscape.SPACE, 0, population=6, parents=3)
    before = []
    rng = random.Random(0)
    waited = 0
    for number in range(60):
        drawn = sampler.draw(sampler.rng(number), before)
        for _ in range(20):
            known = [forget(seen, rng) for seen in before]
            early = sampler.draw(sampler.rng(number), known)
            waited += early is None
            assert early in (None, drawn)
        latency_ms = landscape.latency(drawn)
        feasible = landscape.MIN_MS <= latency_ms <= landscape.MAX_MS
        score = landscape.score(drawn) if feasible else None
        before.append(Seen(drawn, latency_ms, feasible, score))
    assert 0 < waited < 60 * 20


def forget(seen, rng):
    if rng.random() < 0.95:
        return seen
    if seen.feasible and rng.random() < 0.5:
        return replace(seen, score=None)
    return Seen(seen.configuration)


def test_evolution_need_not_wait_for_scores_of_the_generation_it_fills(landscape):
    sampler = EvolutionSampler(landscape.SPACE, 0, population=6, parents=3)
    scoring = [
        Seen(landscape.SPACE.sample(random.Random(n)), latency_ms=40.0, feasible=True)
        for n in range(5)
    ]
    assert sampler.draw(sampler.rng(5), scoring) is not None
    assert sampler.draw(sampler.rng(6), [*scoring, scoring[0]]) is None
