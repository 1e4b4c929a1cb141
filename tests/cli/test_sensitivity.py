"""`sparsevit sensitivity`: every knob alone, scored once, kept for the search."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny

from sparsevit.phases import sensitivity as phase
from sparsevit.phases.sensitivity import sensitivity_for
from sparsevit.search.sensitivity import read_sensitivity
from sparsevit.sparsity import Space
from sparsevit.workspace import Workspace

CHOICES = ("--set", "model.backbone.sparsity_choices=[0.0,0.5]")
TIMED = ("--latency", "measured", "--latency-seconds", 0.01, "--batch-size", 1)
WORDS = ("sensitivity", *CHOICES, *TIMED, "--eval-images", 2)
SPACE = Space.staged((2, 2, 4, 2), choices=(0.0, 0.5), prefix="backbone.stages")


@pytest.fixture(scope="module")
def swept(finished, tmp_path_factory):
    """A copy of the finished workspace in which the sensitivity ran, and what it said."""
    path = tmp_path_factory.mktemp("sensitivity") / "workspace"
    shutil.copytree(finished.path, path)
    done = tiny.run(*WORDS, "--workspace", path, "--json")
    assert done.code == 0, done.err
    return path, done


def test_each_knob_alone_and_those_after_it_in_its_stage(swept):
    _, done = swept
    found = done.document["sensitivity"]
    configurations = [tuple(r["configuration"].values()) for r in found["responses"]]
    assert configurations == [
        (0.5, 0, 0, 0, 0),
        (0, 0.5, 0, 0, 0),
        (0, 0, 0.5, 0.5, 0),
        (0, 0, 0, 0.5, 0),
        (0, 0, 0, 0, 0.5),
    ]
    assert [r["knob"] for r in found["responses"]] == list(SPACE.names)
    assert found["images"] == 2
    assert found["latency"] == "measured"
    for response in (found["dense"], *found["responses"]):
        assert response["latency_ms"] > 0
        assert set(response["scores"]) == set(found["dense"]["scores"])
        assert 0 <= response["scores"]["bbox_mAP"] <= 100


def test_the_scores_are_those_of_evaluate(swept, tmp_path):
    path, done = swept
    weights = path / "adapt/run-001/iter_4.pth"
    responses = [done.document["sensitivity"]["dense"], *done.document["sensitivity"]["responses"]]
    for index in (0, 1, 3):
        file = tmp_path / f"{index}.json"
        file.write_text(json.dumps({"sparsity": responses[index]["configuration"]}))
        config = path / "adapt/run-001/config.py"
        scored = tiny.run(
            *("evaluate", config, weights, "--sparsity", file, "--eval-images", 2),
            *("--workspace", tmp_path / "ws", "--json"),
        )
        assert scored.code == 0, scored.err
        metrics = scored.document["metrics"]
        for name, score in responses[index]["scores"].items():
            assert score == pytest.approx(100 * metrics.get(name, 0.0))


def test_it_writes_json_and_a_picture_for_each(swept):
    path, done = swept
    document = done.document
    found = read_sensitivity(Path(document["file"]))
    assert found.to_dict() == document["sensitivity"]
    assert set(document["plots"]) == {"bbox_mAP", "segm_mAP", "latency"}
    for picture in document["plots"].values():
        assert Path(picture).read_bytes().startswith(b"\x89PNG")
        assert path in Path(picture).parents


def test_status_shows_it(swept):
    path, _ = swept
    run = tiny.run("status", "--workspace", path, "--json").document["runs"][-1]
    assert (run["phase"], run["status"]) == ("sensitivity", "finished")
    assert run["metrics"]["dense_ms"] > 0
    assert "sensitivity" in tiny.run("status", "--workspace", path).out


def test_a_search_finds_it_by_the_weights(swept):
    path, _ = swept
    ws = Workspace.open(path, readonly=True)
    weights = ws.file_digest(path / "adapt/run-001/iter_4.pth")
    found = sensitivity_for(ws, weights, "segm_mAP", SPACE)
    assert found.images == 2
    assert sensitivity_for(ws, "sha256:other", "segm_mAP", SPACE) is None
    assert sensitivity_for(ws, weights, "mIoU", SPACE) is None
    assert sensitivity_for(ws, weights, "segm_mAP", Space.staged((2, 2, 2, 2))) is None
    (path / "sensitivity/run-001/sensitivity.json").rename(path / "elsewhere.json")
    assert sensitivity_for(ws, weights, "segm_mAP", SPACE) is None
    (path / "elsewhere.json").rename(path / "sensitivity/run-001/sensitivity.json")


def test_it_is_printed_as_tables(swept):
    path, _ = swept
    done = tiny.run(*WORDS, "--workspace", path, "--metric", "segm_mAP", "--resume")
    assert done.code == 0, done.err
    assert "segm_mAP x 100, change from dense" in done.out
    assert "milliseconds, change from dense" in done.out
    assert "stages.2_2" in done.out


def test_again_it_is_done_already(swept):
    path, _ = swept
    before = tiny.files(path)
    done = tiny.run(*WORDS, "--workspace", path)
    assert done.code == 2
    assert "already done" in done.err
    assert tiny.files(path) == before


def test_latencies_come_from_a_calibration_where_one_holds(workspace):
    settings = ("--batch-size", 1, *CHOICES, "--workspace", workspace)
    done = tiny.run(
        "calibrate", *settings, "--seconds", 0.01, "--held-out", 2, "--max-error", 1000, "--json"
    )
    assert done.code == 0, done.err
    words = ("sensitivity", *settings, "--eval-images", 1, "--max-error", 1000)
    swept = tiny.run(*words, "--json")
    assert swept.code == 0, swept.err
    found = swept.document["sensitivity"]
    assert found["latency"] == "predicted"
    made = done.document["calibration"]
    assert found["dense"]["latency_ms"] == pytest.approx(made["dense_ms"])
    change = dict(made["tables"][SPACE.names[0]])[0.5]
    assert found["responses"][0]["latency_ms"] == pytest.approx(made["dense_ms"] + change)
    assert "calibrated" in swept.err


def test_stopped_it_goes_on_and_scores_nothing_twice(workspace):
    words = [*WORDS, "--workspace", workspace]
    points = workspace / "sensitivity/run-001/points.json"
    assert tiny.run_until(3, phase, "_write_points", *words).code == 130
    before = json.loads(points.read_text())
    assert len(before) == 3
    done = tiny.run(*words, "--json")
    assert done.code == 0, done.err
    assert done.document["resumed"] is True
    after = json.loads(points.read_text())
    assert after[: len(before)] == before
    assert len(after) == 6
    assert done.document["run"] == "sensitivity run-001"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere.py"], "There is no config nowhere.py"),
        (["--metric", "mIoU"], "Use one of: bbox_mAP"),
        (["--eval-images", 0], "--eval-images"),
        (["--device", "cuda:7"], "Available here: cpu"),
        (["--img-size", 8], "32x32"),
        (["--force", "--resume"], "cannot be used together"),
        (["--backend", "tpu"], "eager"),
        (["--max-error", -1], "--max-error"),
        (["--latency", "guessed"], "--latency"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_is_wrong_is_said_and_nothing_is_written(workspace, words, says):
    before = tiny.files(workspace)
    first = [] if not words[0].endswith(".py") else words
    rest = [] if first else words
    done = tiny.run("sensitivity", *first, *TIMED, *rest, "--workspace", workspace)
    assert done.code == 2, done.err
    assert "Traceback" not in done.err
    assert says in " ".join(line.strip("│ ") for line in done.err.splitlines())
    assert tiny.files(workspace) == before


def test_without_weights_it_says_what_makes_them(tmp_path):
    done = tiny.run("sensitivity", "--workspace", tmp_path)
    assert done.code == 2
    assert "Run `sparsevit pretrain` first" in " ".join(done.err.split())
    assert not list(tmp_path.iterdir())


def test_a_workspace_that_is_a_file(tmp_path, tiny_config):
    (tmp_path / "file").write_text("")
    done = tiny.run("sensitivity", tiny_config, "--workspace", tmp_path / "file")
    assert done.code == 2
    assert "is a file" in " ".join(line.strip("│ ") for line in done.err.splitlines())
