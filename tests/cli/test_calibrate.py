"""`sparsevit calibrate`: measured once, kept, gone on with, and not taken for anything else."""

from __future__ import annotations

import json
import shutil

import pytest
import tiny
import torch

from sparsevit.engine.config import load_config, sparsify_config
from sparsevit.engine.runner import build_model
from sparsevit.errors import UserError
from sparsevit.latency.execution import Execution
from sparsevit.latency.relative import Share
from sparsevit.latency.workload import Workload
from sparsevit.phases import calibrate as phase
from sparsevit.phases.calibrate import calibration_key, kept_calibration
from sparsevit.phases.latency_source import (
    latency_predictor,
    predictor_for,
    scaled_to_now,
    settled_predictor,
)
from sparsevit.workspace import Workspace

KNOBS = [f"backbone.stages.{name}" for name in ("0", "1", "2_1", "2_2", "3")]
WORDS = ("calibrate", "--batch-size", 1, "--seconds", 0.01, "--held-out", 2, "--max-error", 1000)
# as few points of each knob as there can be
FEW = (*WORDS, "--set", "model.backbone.sparsity_choices=[0,0.5]")


class Notes:
    """A reporter that keeps what it is told."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)

    def heading(self, text):
        self.notes.append(text)

    from sparsevit.report.reporter import SILENT

    task = SILENT.task


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory, tiny_config):
    """A workspace with a calibration of the tiny model, and what the command said."""
    path = tmp_path_factory.mktemp("calibrated")
    done = tiny.run(*WORDS, tiny_config, "--workspace", path, "--json")
    assert done.code == 0, done.err
    return path, done


@pytest.fixture(scope="module")
def few_only(tmp_path_factory, tiny_config):
    """A workspace with a calibration of few points, which nothing may change, and what was said."""
    path = tmp_path_factory.mktemp("few") / "workspace"
    done = tiny.run(*FEW, tiny_config, "--workspace", path, "--json")
    assert done.code == 0, done.err
    return path, done


@pytest.fixture
def few(few_only, tmp_path):
    """A copy of that workspace, and what was said."""
    path, done = few_only
    return shutil.copytree(path, tmp_path / "workspace"), done


def timed(tiny_config, *changes, weights=None, **how):
    cfg = sparsify_config(load_config(tiny_config))
    cfg.merge_from_dict(dict(changes))
    model, _ = build_model(cfg)
    execution = Execution(**{"batch_size": 1, "img_size": (64, 64), **how})
    return Workload(model, execution, weights=weights)


# --- the command ---------------------------------------------------------------------------------


def test_it_gives_a_table_a_check_and_where_they_are_kept(calibrated):
    path, done = calibrated
    made = done.document["calibration"]
    assert list(made["tables"]) == KNOBS
    assert [row[0] for row in made["tables"][KNOBS[0]]] == pytest.approx([r / 10 for r in range(9)])
    assert made["dense_ms"] > 0
    assert len(made["held_out"]) == 2
    errors = [
        abs(each["predicted_ms"] - each["measured_ms"]) / each["measured_ms"]
        for each in made["held_out"]
    ]
    assert made["mean_error"] == pytest.approx(sum(errors) / 2)
    assert made["max_error"] == pytest.approx(max(errors))
    assert done.document["accepted"] is True
    assert done.document["reused"] is False
    assert done.document["img_size"] == [64, 64]
    assert made["key"]["threads"] == torch.get_num_threads()
    kept = json.loads((path / "calibrations").joinpath(done.document["file"]).read_text())
    assert kept["document"]["tables"] == made["tables"]
    assert "calibrate" in done.err


def test_it_is_recorded_and_shown_by_status(calibrated):
    path, _ = calibrated
    (run,) = tiny.run("status", "--workspace", path, "--json").document["runs"]
    assert run["phase"] == "calibrate"
    assert run["status"] == "finished"
    assert run["metrics"]["dense_ms"] > 0
    assert run["outputs"]["calibration"].startswith("calibrations/")
    assert "mean_error" in tiny.run("status", "--workspace", path).out


def test_again_it_is_shown_and_nothing_is_measured(calibrated, tiny_config):
    path, first = calibrated
    before = tiny.files(path)
    done = tiny.run(*WORDS, tiny_config, "--workspace", path, "--json")
    assert done.code == 0, done.err
    assert done.document["reused"] is True
    assert done.document["calibration"] == first.document["calibration"]
    assert tiny.files(path) == before


def test_a_limit_of_the_callers_decides_over_a_kept_one(calibrated, tiny_config):
    path, _ = calibrated
    words = [*WORDS[:-1], 0]
    done = tiny.run(*words, tiny_config, "--workspace", path)
    assert done.code == 0, done.err
    assert "Not accepted" in done.out
    assert "Searches will time every candidate" in done.out
    assert "reused, measured" in done.out


def test_force_measures_again_in_a_new_run(tiny_config, few):
    path, first = few
    done = tiny.run(*FEW, tiny_config, "--workspace", path, "--force", "--json")
    assert done.code == 0, done.err
    assert done.document["reused"] is False
    assert done.document["calibration"] != first.document["calibration"]
    assert (path / "calibrate/run-002").is_dir()


def test_a_table_fits_a_terminal(calibrated, tiny_config):
    done = tiny.run(*WORDS, tiny_config, "--workspace", calibrated[0])
    assert "stages.2_1" in done.out
    assert "…" not in done.out
    assert "Held-out configurations" in done.out


def test_a_file_that_is_damaged_is_measured_anew(tiny_config, few):
    path, _ = few
    (file,) = (path / "calibrations").iterdir()
    for damage in ("", '{"version": 1, "key": {}, "document": {}}'):
        file.write_text(damage)
        done = tiny.run(*FEW, tiny_config, "--workspace", path, "--json")
        assert done.code == 0, done.err
        assert done.document["reused"] is False
        assert json.loads(file.read_text())["document"]["dense_ms"] > 0


def test_stopped_it_goes_on_with_what_it_measured(tmp_path, tiny_config):
    words = [*FEW, tiny_config, "--workspace", tmp_path]
    measured = tmp_path / "calibrate/run-001/measured.json"
    assert tiny.run_until(3, phase, "_write_shares", *words).code == 130
    assert not (tmp_path / "calibrations").exists()
    before = json.loads(measured.read_text())
    assert len(before) == 3
    done = tiny.run(*words, "--json")
    assert done.code == 0, done.err
    after = json.loads(measured.read_text())
    assert after[: len(before)] == before
    assert len(after) > len(before)
    (run,) = tiny.run("status", "--workspace", tmp_path, "--json").document["runs"]
    assert run["attempts"] == 2


def test_a_whole_detector_with_its_weights(workspace):
    done = tiny.run(*FEW, "--workspace", workspace, "--scope", "detector", "--json")
    assert done.code == 0, done.err
    assert done.document["calibration"]["key"]["checkpoint_sha256"].startswith("sha256:")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere.py"], "There is no config nowhere.py"),
        (["--device", "cuda:7"], "Available here: cpu"),
        (["--img-size", "8"], "32x32"),
        (["--scope", "detector"], "depends on what it finds"),
        (["--backend", "tpu"], "eager"),
        (["--backend", "tensorrt"], "tensorrt"),
        (["--held-out", 0], "--held-out"),
        (["--max-error", -1], "--max-error"),
        (["--seconds", 0], "--seconds"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_is_wrong_is_said_and_nothing_is_written(tmp_path, tiny_config, words, says):
    config = [] if words[0].endswith(".py") else [tiny_config]
    done = tiny.run(*WORDS, *config, *words, "--workspace", tmp_path)
    assert done.code == 2, done.err
    assert "Traceback" not in done.err
    said = " ".join(line.strip("│ ") for line in done.err.splitlines())
    assert says in said
    assert not (tmp_path / "calibrations").exists()


def test_a_workspace_that_is_a_file(tmp_path, tiny_config):
    (tmp_path / "file").write_text("")
    done = tiny.run(*WORDS, tiny_config, "--workspace", tmp_path / "file")
    assert done.code == 2
    assert "is a file" in " ".join(line.strip("│ ") for line in done.err.splitlines())


# --- what it holds for ---------------------------------------------------------------------------


def test_it_holds_for_what_it_was_measured_for(calibrated, tiny_config):
    ws = Workspace.open(calibrated[0], readonly=True)
    assert kept_calibration(ws, timed(tiny_config)) is not None


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 2},
        {"img_size": (64, 96)},
        {"precision": "bf16"},
        {"backend": "compile"},
        {"scope": "detector"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_it_does_not_hold_for_another(calibrated, tiny_config, change):
    ws = Workspace.open(calibrated[0], readonly=True)
    assert kept_calibration(ws, timed(tiny_config, **change)) is None


@pytest.mark.parametrize(
    "change",
    [
        ("model.backbone.embed_dims", 16),
        ("model.backbone.depths", [2, 2, 2, 2]),
        ("model.backbone.sparsity_choices", [0, 0.5]),
    ],
    ids=lambda change: change[0].rpartition(".")[2],
)
def test_it_does_not_hold_for_another_model(calibrated, tiny_config, change):
    ws = Workspace.open(calibrated[0], readonly=True)
    assert kept_calibration(ws, timed(tiny_config, change)) is None


@pytest.mark.parametrize("what", ["device_name", "torch", "threads", "kernels"])
def test_it_does_not_hold_elsewhere(calibrated, tiny_config, monkeypatch, what):
    model = timed(tiny_config)
    if what == "device_name":
        monkeypatch.setattr(phase, "device_name", lambda device: "another")
    if what == "torch":
        monkeypatch.setattr(phase, "versions", lambda: {"torch": "99"})
    if what == "threads":
        monkeypatch.setattr(phase.torch, "get_num_threads", lambda: 999)
    if what == "kernels":
        monkeypatch.setenv("SPARSEVIT_KERNELS", "off")
    assert kept_calibration(Workspace.open(calibrated[0], readonly=True), model) is None


def test_other_weights_and_another_sparsity_are_the_same_model(tiny_config):
    one, other = timed(tiny_config), timed(tiny_config)
    with torch.no_grad():
        next(other.model.parameters()).add_(1)
    other.handle.set(other.handle.space.uniform(0.5))
    assert calibration_key(one) == calibration_key(other)


def test_weights_count_where_a_whole_detector_is_timed(tiny_config):
    for scope, same in (("detector", False), ("backbone", True)):
        one, other = (timed(tiny_config, scope=scope, weights=f"sha256:{w}") for w in "ab")
        assert (calibration_key(one) == calibration_key(other)) is same


# --- for a search --------------------------------------------------------------------------------


def by_cost(monkeypatch, cost):
    """Measuring is replaced: a configuration's share of dense is what ``cost`` says."""

    def work(timed):
        return lambda configuration: sum(1 - ratio for ratio in configuration.values())

    def at(workload, configuration):
        return lambda: cost(configuration)

    def measure_share(call, dense, device, *, seconds):
        return Share(call() / dense(), 1e-4, 5, 100.0, 0.01)

    monkeypatch.setattr(phase, "_work", work)
    monkeypatch.setattr(Workload, "at", at)
    monkeypatch.setattr(phase, "measure_share", measure_share)


def test_a_search_gets_a_predictor_and_the_next_one_the_same(tmp_path, tiny_config, monkeypatch):
    by_cost(monkeypatch, lambda c: 1 - 0.1 * sum(c.values()))
    ws, said = Workspace.open(tmp_path), Notes()
    model = timed(tiny_config)
    model.handle.set(model.handle.space.uniform(0.3))
    predictor = predictor_for(ws, model, reporter=said)
    assert predictor.predict(model.handle.space.uniform(0.8)) == pytest.approx(60, rel=0.02)
    assert model.handle.get() == model.handle.space.uniform(0.3)
    assert any("calibrated, predictions off by" in note for note in said.notes)
    monkeypatch.setattr(phase, "measure_share", None)
    again = predictor_for(Workspace.open(tmp_path), timed(tiny_config), reporter=said)
    assert again.calibration == predictor.calibration


def test_within_a_run_of_the_same_process_it_can_be_made(tmp_path, tiny_config, monkeypatch):
    by_cost(monkeypatch, lambda c: 1 - 0.1 * sum(c.values()))
    ws = Workspace.open(tmp_path)
    with ws.run("search", {"seed": 0}):
        assert predictor_for(ws, timed(tiny_config)) is not None
    assert {run.phase: run.status for run in ws.status_rows()} == {
        "search": "finished",
        "calibrate": "finished",
    }


def test_where_knobs_interact_there_is_no_predictor_and_that_is_said(
    tmp_path, tiny_config, monkeypatch
):
    by_cost(monkeypatch, lambda c: 1 - 2 * c.mean() * (1 - c.mean()))
    ws, said = Workspace.open(tmp_path), Notes()
    assert predictor_for(ws, timed(tiny_config), reporter=said) is None
    assert "each configuration is timed instead" in said.notes[-1]
    # not measured in vain by the next search
    monkeypatch.setattr(phase, "measure_share", None)
    assert predictor_for(ws, timed(tiny_config), reporter=said) is None
    done = tiny.run("status", "--workspace", tmp_path, "--json").document["runs"][0]
    assert done["metrics"]["accepted"] is False


@pytest.mark.parametrize(("dense_ms", "says"), [(125, "25% slower"), (80, "20% faster")])
def test_a_machine_that_has_another_speed_now_is_said(
    tmp_path, tiny_config, monkeypatch, dense_ms, says
):
    by_cost(monkeypatch, lambda c: 1 - 0.1 * sum(c.values()))
    predictor, said = predictor_for(Workspace.open(tmp_path), timed(tiny_config)), Notes()
    scaled = scaled_to_now(predictor, dense_ms, said)
    (note,) = said.notes
    assert says in note
    assert scaled.predict(scaled.calibration.held_out[0].configuration) == pytest.approx(
        scaled.calibration.held_out[0].predicted_ms * dense_ms / 100
    )
    quiet = Notes()
    scaled_to_now(predictor, 101, quiet)
    assert quiet.notes == []


@pytest.mark.parametrize(
    ("how", "seconds", "kept", "predicts"),
    [
        ("measured", 1e6, True, False),
        ("predicted", 0, False, True),
        ("auto", 0, True, True),
        ("auto", 599, False, False),
        ("auto", 601, False, True),
    ],
)
def test_who_has_little_to_time_times_it_and_who_has_much_calibrates(
    tmp_path, tiny_config, monkeypatch, how, seconds, kept, predicts
):
    by_cost(monkeypatch, lambda c: 1 - 0.1 * sum(c.values()))
    ws, model = Workspace.open(tmp_path), timed(tiny_config)
    if kept:
        predictor_for(ws, model)
    found = latency_predictor(ws, model, how, timing_seconds=seconds)
    assert (found is not None) == predicts
    assert (tmp_path / "calibrations").exists() == (kept or predicts)


def test_a_run_goes_by_its_first_decision(tmp_path, tiny_config, monkeypatch):
    by_cost(monkeypatch, lambda c: 1 - 0.1 * sum(c.values()))
    made = predictor_for(Workspace.open(tmp_path / "ws"), timed(tiny_config)).scaled(123)
    assert settled_predictor(tmp_path, lambda: made) is made
    again = settled_predictor(tmp_path, None)
    assert again.calibration == made.calibration
    assert again.dense_ms == 123


def test_a_run_that_began_to_time_goes_on_to_time(tmp_path):
    assert settled_predictor(tmp_path, lambda: None) is None
    assert settled_predictor(tmp_path, None) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"latency": "predicted", "dense_ms": 1}'])
def test_a_decision_that_cannot_be_read_is_said(tmp_path, text):
    (tmp_path / "latency.json").write_text(text)
    with pytest.raises(UserError, match="cannot be read"):
        settled_predictor(tmp_path, lambda: None)


def test_there_is_no_other_way_to_a_latency(tmp_path, tiny_config):
    with pytest.raises(UserError, match="auto, predicted, measured"):
        latency_predictor(Workspace.open(tmp_path), timed(tiny_config), "guessed", timing_seconds=1)


def test_a_python_caller_gets_the_error_of_a_detector_without_weights(tmp_path, tiny_config):
    with pytest.raises(UserError, match="no weights"):
        phase.calibrate(tiny_config, workspace=tmp_path, scope="detector")
