"""Predictions are exact for latencies that add up, and refused for those that do not."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsevit.latency.calibration import (
    TUNING,
    Plan,
    calibrate,
    draw_held_out,
    measure_plan,
)
from sparsevit.latency.predictor import Calibration, LatencyPredictor
from sparsevit.latency.relative import TARGET, Share
from sparsevit.sparsity import Configuration, ConfigurationError, Knob, Space
from sparsevit.sparsity.sweep import sweep

SWIN_T = Space.staged((2, 2, 6, 2), prefix="backbone.stages")
SIZES = {name: 24 // 2 ** int(name.split(".")[-1][0]) for name in SWIN_T.names}
DENSE_MS = 500.0


def work(configuration):
    """Windows that are left of an image of 672x672, each stage weighing as much as another."""
    return sum(
        int(SIZES[name] ** 2 * (1 - ratio)) / SIZES[name] ** 2
        for name, ratio in configuration.items()
    )


def additive(costs, scoring=0.01):
    """Latency of a model whose knobs cost what they keep, and whose stages pay once to choose."""

    def latency(configuration):
        kept = {n: int(SIZES[n] ** 2 * (1 - r)) / SIZES[n] ** 2 for n, r in configuration.items()}
        chosen = {name.rsplit("_")[0] for name, ratio in configuration.items() if ratio > 0}
        return DENSE_MS * (
            1 + sum(costs[n] * (kept[n] - 1) for n in SWIN_T.names) + scoring * len(chosen)
        )

    return latency


def calibrated(latency, space=SWIN_T, *, noise=0.0, seconds=1e9, held_out=12, seed=0, work=work):
    """The calibration of a made-up latency, each measurement off by Gaussian noise."""
    rng = random.Random(seed)
    plan = Plan(space, work, held_out, seed)

    def measure(configuration, allowed):
        share = latency(configuration) / latency(space.dense()) + rng.gauss(0, noise)
        return Share(share, noise, 5, DENSE_MS, 1.0)

    return calibrate(plan, measure_plan(plan, measure, seconds=seconds), key={"made": "up"})


COSTS = st.fixed_dictionaries(
    {name: st.floats(0.01, 0.15, allow_nan=False) for name in SWIN_T.names}
)


@given(costs=COSTS, scoring=st.floats(0, 0.02), seed=st.integers(0, 1000))
def test_a_latency_that_adds_up_is_predicted_exactly(costs, scoring, seed):
    latency = additive(costs, scoring)
    calibration = calibrated(latency, seed=seed)
    predictor = LatencyPredictor(calibration)
    assert calibration.mean_error < 1e-6
    assert predictor.predict(SWIN_T.dense()) == pytest.approx(DENSE_MS)
    for _ in range(5):
        configuration = SWIN_T.sample(random.Random(seed))
        assert predictor.predict(configuration) == pytest.approx(latency(configuration), rel=1e-6)


def test_steps_that_follow_no_line_are_kept_where_there_is_no_noise():
    """A GPU takes whole waves of windows: the cost falls in steps."""
    costs = dict.fromkeys(SWIN_T.names, 0.12)

    def latency(configuration):
        return DENSE_MS * (
            1 - sum(costs[n] * (int(r * 10) // 3 * 3 / 10) for n, r in configuration.items())
        )

    calibration = calibrated(latency, work=lambda c: sum(1 - r for r in c.values()))
    assert calibration.mean_error < 1e-6


@pytest.mark.parametrize("seed", range(5))
def test_measurements_as_good_as_they_are_meant_to_be_leave_predictions_within_the_limit(seed):
    latency = additive(dict.fromkeys(SWIN_T.names, 0.13))
    calibration = calibrated(latency, noise=TARGET, seed=seed)
    assert calibration.accepted
    predictor = LatencyPredictor(calibration)
    rng = random.Random(seed + 100)
    errors = []
    for _ in range(200):
        configuration = SWIN_T.sample(rng)
        truth = latency(configuration)
        errors.append(abs(predictor.predict(configuration) - truth) / truth)
    assert sum(errors) / len(errors) < 0.02


def test_noise_is_smoothed_along_a_knob():
    """Less than a measurement's own error is left, as ratios of a knob inform each other."""
    latency = additive(dict.fromkeys(SWIN_T.names, 0.13))
    errors = []
    for seed in range(20):
        predictor = LatencyPredictor(calibrated(latency, noise=0.01, seed=seed))
        configuration = Configuration({**SWIN_T.dense(), "backbone.stages.0": 0.4})
        errors.append((predictor.predict(configuration) - latency(configuration)) / DENSE_MS)
    assert (sum(error**2 for error in errors) / len(errors)) ** 0.5 < 0.006


def test_what_groups_save_beside_each_other_is_fitted():
    """A stage that is sparse saves more where the others leave it the cache."""

    def latency(configuration):
        saved = sum(0.2 * ratio / 6 for ratio in configuration.values())
        beside = sum(ratio > 0 for ratio in configuration.values()) > 1
        return DENSE_MS * (1 - saved * (1.15 if beside else 1.0))

    calibration = calibrated(latency, Space.staged((2, 2, 2, 2)), work=lambda c: -c.mean())
    assert calibration.mean_error < 0.007


@given(strength=st.floats(0.8, 1.0), seed=st.integers(0, 100))
def test_a_latency_in_which_knobs_interact_is_refused(strength, seed):
    """What one stage saves is lost where another is sparse too: no sum says that."""

    def latency(configuration):
        mean = configuration.mean()
        return DENSE_MS * (1 - strength * mean * (1 - mean) * 2)

    assert not calibrated(
        latency, seed=seed, work=lambda c: sum(1 - r for r in c.values())
    ).accepted


def test_the_limit_decides():
    calibration = calibrated(additive(dict.fromkeys(SWIN_T.names, 0.13)), noise=0.01)
    assert 0 < calibration.mean_error < calibration.max_error
    document = {**calibration.to_dict(), "limit": calibration.mean_error * 0.99}
    assert not Calibration.from_dict(document).accepted


def test_time_that_is_short_measures_less_and_interpolates():
    latency = additive(dict.fromkeys(SWIN_T.names, 0.13))
    whole, short = calibrated(latency), calibrated(latency, seconds=1)
    assert short.measured == 3 * len(SWIN_T.names) + TUNING
    assert whole.measured == len(Plan(SWIN_T, work, 12, 0).points) - DUPLICATES + TUNING
    assert short.seconds < whole.seconds
    assert short.accepted


# ratios that keep equally many of the 9 windows of the last stage
DUPLICATES = 8 - len({int(9 * (1 - ratio / 10)) for ratio in range(1, 9)})


def test_what_was_measured_before_is_not_measured_again_and_its_time_counts():
    plan = Plan(SWIN_T, work, 4, 0)
    asked = []

    def measure(configuration, allowed):
        asked.append(configuration)
        return Share(0.9, 0.001, 5, DENSE_MS, 1.0)

    first = measure_plan(plan, measure, seconds=25 + TUNING)
    told = []
    asked.clear()
    again = measure_plan(
        plan, measure, seconds=25 + TUNING, known=first, on_share=lambda c, share: told.append(c)
    )
    assert asked == told == []
    assert again == first
    measure_plan(plan, measure, seconds=30 + TUNING, known=first)
    assert len(asked) == 5
    assert not set(asked) & set(first)


def test_a_measurement_may_take_its_part_of_the_time_that_is_left():
    plan = Plan(SWIN_T, work, 4, 0)
    allowed_each = []

    def measure(configuration, allowed):
        allowed_each.append(allowed)
        return Share(0.9, 0.001, 5, DENSE_MS, 1.0)

    measure_plan(plan, measure, seconds=10 * len(plan))
    assert allowed_each[0] == pytest.approx(10)
    assert allowed_each[-1] > 10


# --- what is measured ----------------------------------------------------------------------------


def test_knobs_without_a_zero_or_without_a_choice():
    space = Space([Knob("a", "a", (0.2, 0.4)), Knob("b", "b", (0.0,))])

    def latency(configuration):
        return DENSE_MS * (1 - 0.5 * configuration["a"])

    calibration = calibrated(latency, space, work=lambda c: 2 - c["a"])
    predictor = LatencyPredictor(calibration)
    assert predictor.predict({"a": 0.4, "b": 0.0}) == pytest.approx(DENSE_MS * 0.8)
    assert calibration.tables["b"] == ((0.0, 0.0),)


def test_a_model_that_can_only_be_dense():
    space = Space([Knob("a", "a", (0.0,))])
    plan = Plan(space, lambda c: 1.0, 3, 0)
    assert not len(plan)
    assert draw_held_out(space, 3, 0) == []


@given(seed=st.integers(0, 100))
def test_held_out_configurations_differ_and_are_of_no_sweep(seed):
    drawn = draw_held_out(SWIN_T, 12, seed)
    assert len(set(drawn)) == 12
    assert not set(drawn) & {point.configuration for point in sweep(SWIN_T)}
    assert all(configuration in SWIN_T for configuration in drawn)
    assert drawn == draw_held_out(SWIN_T, 12, seed)


# --- the predictor -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def predictor():
    return LatencyPredictor(calibrated(additive(dict.fromkeys(SWIN_T.names, 0.13)), noise=0.005))


def test_a_machine_that_is_slower_now_scales_every_prediction(predictor):
    slower = predictor.scaled(1.2 * predictor.dense_ms)
    assert slower.drift == pytest.approx(0.2)
    assert slower.predict(SWIN_T.dense()) == pytest.approx(1.2 * predictor.dense_ms)
    configuration = SWIN_T.uniform(0.5)
    assert slower.predict(configuration) == pytest.approx(1.2 * predictor.predict(configuration))
    assert predictor.drift == 0


def test_between_ratios_it_interpolates_and_above_all_it_refuses(predictor):
    def at(ratio):
        return predictor.predict({**SWIN_T.dense(), "backbone.stages.0": ratio})

    assert at(0.45) == pytest.approx((at(0.4) + at(0.5)) / 2)
    with pytest.raises(ConfigurationError, match=r"stages\.0.*0\.85"):
        at(0.85)


def test_other_knobs_are_refused(predictor):
    with pytest.raises(ConfigurationError, match="knobs"):
        predictor.predict({"backbone.stages.0": 0.5})
    with pytest.raises(ConfigurationError, match="extra"):
        predictor.predict({**SWIN_T.dense(), "extra": 0.5})


def test_the_standard_error_is_what_held_out_configurations_showed(predictor):
    errors = [each.error for each in predictor.calibration.held_out]
    typical = (sum(error**2 for error in errors) / len(errors)) ** 0.5
    assert predictor.standard_error(SWIN_T.dense()) == pytest.approx(predictor.dense_ms * typical)


def test_a_calibration_survives_json(predictor):
    made = predictor.calibration
    assert Calibration.from_dict(json.loads(json.dumps(made.to_dict()))) == made


@pytest.mark.parametrize(
    "change",
    [
        {"dense_ms": "fast"},
        {"dense_ms": float("nan")},
        {"tables": {"a": [[0, 0, 0]]}},
        {"tables": {"a": [[0, 0], [0.2, -1], [0.1, -2]]}},
        {"tables": {"a": []}},
        {"tables": None},
        {"held_out": [{"configuration": {"a": 2}}]},
        {"mean_error": None},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_document_that_is_no_calibration_is_refused(predictor, change):
    with pytest.raises(ValueError, match="no calibration"):
        Calibration.from_dict({**predictor.calibration.to_dict(), **change})
