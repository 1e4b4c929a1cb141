"""The model behind the guided sampler, and what it makes of it."""

import math

import pytest
import torch

from sparsevit.search.samplers import make_sampler
from sparsevit.search.samplers.latency_fit import LatencyFit
from sparsevit.search.samplers.surrogate import ScoreModel, expected_improvement
from sparsevit.search.seen import Seen
from sparsevit.sparsity import Space

SPACE = Space.staged((2, 2, 2, 2))


def random_points(count, seed=0, D=4):
    return torch.rand(count, D, generator=torch.Generator().manual_seed(seed)).double()


def smooth(x_ND):
    return 30 - 5 * x_ND[:, 0] ** 2 - 2 * x_ND[:, 1] - 3 * x_ND[:, 2] * x_ND[:, 0]


def test_the_model_predicts_a_smooth_score_and_knows_how_well():
    x, held_out = random_points(40), random_points(50, seed=1)
    mean, deviation = ScoreModel(x, smooth(x)).predict(held_out)
    error = (mean - smooth(held_out)).abs()
    assert error.mean() < 0.1 * smooth(held_out).std()
    assert (error < 3 * deviation).double().mean() > 0.9


def test_the_model_takes_roughness_for_what_it_is():
    x, held_out = random_points(120), random_points(200, seed=1)
    noise = torch.randn(320, generator=torch.Generator().manual_seed(2)).double()
    mean, deviation = ScoreModel(x, smooth(x) + noise[:120]).predict(held_out)
    error = mean - (smooth(held_out) + noise[120:])
    assert 0.8 < deviation.mean() < 1.4
    assert error.square().mean().sqrt() < 1.3


def test_equal_scores_are_no_trouble_for_the_model():
    x = random_points(6)
    mean, deviation = ScoreModel(x, torch.full((6,), 7.0).double()).predict(x)
    assert torch.allclose(mean, torch.tensor(7.0).double())
    assert torch.isfinite(deviation).all()


def test_of_very_many_scores_the_model_is_fitted_to_some_with_the_best_among_them():
    x = random_points(700)
    model = ScoreModel(x, smooth(x))
    assert len(model.x_ND) == 400
    best = x[smooth(x).argmax()]
    assert (model.x_ND == best).all(1).any()


def test_the_parameters_of_another_model_are_taken_as_they_are():
    x = random_points(20)
    first = ScoreModel(x[:10], smooth(x[:10]))
    assert ScoreModel(x, smooth(x), first).parameters is first.parameters


def test_expected_improvement_is_the_mean_of_what_is_above_the_best():
    mean, deviation = (
        torch.tensor([1.0, 3.0, 2.0]).double(),
        torch.tensor([1.0, 0.5, 1e-6]).double(),
    )
    samples = torch.randn(400_000, 1, generator=torch.Generator().manual_seed(0)).double()
    expected = (mean + deviation * samples - 2.0).clamp_min(0).mean(0)
    assert torch.allclose(expected_improvement(mean, deviation, 2.0), expected, atol=5e-3)


def test_a_linear_latency_is_learned_and_its_chance_follows():
    x = random_points(30)
    slopes = torch.tensor([10.0, 5.0, 2.0, 1.0]).double()
    fit = LatencyFit(x, 60 - x @ slopes)
    held_out = random_points(20, seed=1)
    mean, _ = fit.predict(held_out)
    assert torch.allclose(mean, 60 - held_out @ slopes, atol=0.2)
    corner = torch.zeros(1, 4).double()
    assert fit.chance(corner, (55.0, 65.0)).item() > 0.99
    assert fit.chance(corner, (40.0, 50.0)).item() < 0.01
    assert math.isclose(fit.chance(corner, (40.0, 60.0)).item(), 0.5, abs_tol=0.1)


def latency(configuration):
    return 60 - 20 * configuration.mean()


def score(configuration):
    return 40 - sum(place * ratio**2 for place, ratio in enumerate(configuration.values()))


def test_it_learns_to_stay_in_the_interval_where_latency_is_only_measured():
    interval = (52.0, 54.0)
    shares = {}
    for name in ("guided", "random"):
        sampler = make_sampler(name, SPACE, 0, interval=interval)
        before = []
        for number in range(40):
            drawn = sampler.draw(sampler.rng(number), before)
            ms = latency(drawn)
            feasible = interval[0] <= ms <= interval[1]
            before.append(Seen(drawn, ms, feasible, score(drawn) if feasible else None))
        shares[name] = sum(seen.feasible for seen in before[10:]) / 30
    assert shares["guided"] > 0.8
    assert shares["random"] < 0.5


def test_scores_known_beforehand_save_the_start():
    """Told how each knob alone answers, the first draw is already a good one."""
    dense = SPACE.dense()
    known = {
        SPACE.validate({**dense, name: ratio}): score({**dense, name: ratio})
        for name in SPACE.names
        for ratio in (0.0, 0.4, 0.8)
    }
    interval = (50.0, 52.0)
    inside = [score(c) for c in SPACE.every() if interval[0] <= latency(c) <= interval[1]]
    told = make_sampler("guided", SPACE, 0, interval=interval, predict=latency, sensitivity=known)
    first = told.draw(told.rng(0), [])
    better = sum(other > score(first) for other in inside) / len(inside)
    assert better < 0.05
    assert told.describe() != make_sampler("guided", SPACE, 0).describe()


def test_of_configurations_with_one_effect_only_one_is_drawn():
    def effect(configuration):
        return tuple(round(ratio) for ratio in configuration.values())

    sampler = make_sampler("guided", SPACE, 0, effect=effect)
    before = []
    for number in range(16):
        drawn = sampler.draw(sampler.rng(number), before)
        before.append(Seen(drawn, latency(drawn), True, score(drawn)))
    assert len({effect(seen.configuration) for seen in before}) == 16


@pytest.mark.parametrize("lag", [0, 2])
def test_with_a_lag_it_spreads_what_it_draws_at_the_same_time(lag):
    sampler = make_sampler("guided", SPACE, 0, startup=4, lag=lag)
    before = []
    for number in range(14):
        drawn = sampler.draw(sampler.rng(number), before)
        before.append(Seen(drawn, latency(drawn), True, score(drawn)))
    configurations = [seen.configuration for seen in before]
    assert len(set(configurations)) == 14
