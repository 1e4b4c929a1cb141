"""A search that judges latency by a calibration, and times its winner."""

from __future__ import annotations

import json
import shutil

import pytest
import tiny

SETTINGS = ("--batch-size", 1, "--set", "model.backbone.sparsity_choices=[0.0,0.5]")
SEARCH = ("search", *tiny.SEARCH, *SETTINGS, "--eval-images", 1, "--max-error", 1000)


@pytest.fixture(scope="module")
def calibrated_only(finished, tmp_path_factory):
    """A copy of the finished workspace with a calibration, which nothing may change."""
    path = shutil.copytree(finished.path, tmp_path_factory.mktemp("calibrated") / "workspace")
    words = ("calibrate", *SETTINGS, "--seconds", 0.01, "--held-out", 2, "--workspace", path)
    done = tiny.run(*words, "--json")
    assert done.code == 0, done.err
    return path, done.document["calibration"]


@pytest.fixture
def calibrated(calibrated_only, tmp_path):
    """A copy of that, and the calibration in it."""
    path, made = calibrated_only
    return shutil.copytree(path, tmp_path / "workspace"), made


def decision(workspace):
    """By what the last search judged."""
    path = max((workspace / "search").iterdir()) / "latency.json"
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_search_predicts_where_there_is_a_calibration_and_times_the_winner(calibrated):
    workspace, made = calibrated
    done = tiny.run(*SEARCH, "--workspace", workspace, "--json")
    assert done.code == 0, done.err
    assert done.document["latency"] == "predicted"
    assert done.document["prediction_error"] == pytest.approx(made["mean_error"])
    kept = decision(workspace)
    scale = kept["dense_ms"] / made["dense_ms"]
    for trial in done.document["search"]["trials"]:
        changes = [
            dict(map(tuple, made["tables"][knob]))[ratio]
            for knob, ratio in trial["configuration"].items()
        ]
        predicted_ms = scale * (made["dense_ms"] + sum(changes))
        assert trial["predicted_ms"] == pytest.approx(predicted_ms)
    assert done.document["search"]["best"]["confirmed_ms"] > 0
    assert "latency: calibrated" in done.err


def test_it_goes_on_by_the_calibration_that_it_began_with(calibrated):
    workspace, _ = calibrated
    first = tiny.run(*SEARCH, "--workspace", workspace, "--json")
    assert first.code == 0, first.err
    before = decision(workspace)
    (file,) = (workspace / "calibrations").iterdir()
    file.unlink()
    words = [*SEARCH, "--trials", 5, "--resume", "--workspace", workspace, "--json"]
    more = tiny.run(*words)
    assert more.code == 0, more.err
    assert more.document["latency"] == "predicted"
    assert decision(workspace) == before
    trials = first.document["search"]["trials"]
    again = more.document["search"]["trials"][: len(trials)]
    assert [trial["predicted_ms"] for trial in again] == [trial["predicted_ms"] for trial in trials]


def test_a_calibration_that_is_too_far_off_is_not_used(calibrated):
    workspace, _ = calibrated
    words = [*SEARCH[:-1], 0, "--workspace", workspace]
    done = tiny.run(*words, "--json")
    assert done.code == 0, done.err
    assert done.document["latency"] == "measured"
    assert done.document["prediction_error"] is None
    assert "each configuration is timed instead" in done.err
    assert decision(workspace)["latency"] == "measured"


def test_a_search_may_time_though_there_is_a_calibration(calibrated):
    workspace, _ = calibrated
    done = tiny.run(*SEARCH, "--latency", "measured", "--workspace", workspace)
    assert done.code == 0, done.err
    assert "cpu, measured" in done.out


def test_a_search_of_few_trials_makes_no_calibration(workspace):
    done = tiny.run(*SEARCH, "--workspace", workspace, "--json")
    assert done.code == 0, done.err
    assert done.document["latency"] == "measured"
    assert not (workspace / "calibrations").exists()


def test_an_interval_out_of_reach_is_refused_before_a_calibration(workspace):
    words = [*SEARCH, "--latency", "predicted", "--workspace", workspace]
    words[words.index("--min") + 1], words[words.index("--max") + 1] = 100_000, 200_000
    done = tiny.run(*words)
    assert done.code == 2
    said = " ".join(line.strip("│ ") for line in done.err.splitlines())
    assert "Choose an interval within" in said
    assert not (workspace / "calibrations").exists()
    assert not (workspace / "calibrate").exists()


@pytest.mark.parametrize(
    "words", [["--latency", "guessed"], ["--max-error", -1]], ids=lambda words: words[0]
)
def test_what_is_wrong_is_said(workspace, words):
    done = tiny.run(*SEARCH, *words, "--workspace", workspace)
    assert done.code == 2
    assert words[0] in done.err
