"""Searches of several intervals, by several workers, of the whole front; and what comes after."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
import tiny

from sparsevit.phases.device import device_name
from sparsevit.phases.search import search
from sparsevit.sparsity import read_configuration
from sparsevit.workspace import Workspace

QUICK = (*tiny.SEARCH[4:], "--latency", "measured")
BOTH = ("--budget", "0:10000", "--budget", "0:9000")


def searched(workspace, *words):
    done = tiny.run("search", *QUICK, *words, "--workspace", workspace, "--json")
    assert done.code == 0, done.err
    assert "ended with exit code" not in done.err
    return done.document


def windows_kept(configuration):
    """By knob, on the 64x64 pixels of the tiny dataset."""
    return tuple(
        int(n * (1 - r)) for n, r in zip((9, 4, 1, 1, 1), configuration.values(), strict=True)
    )


def test_several_intervals_have_a_best_each_and_score_nothing_twice(pretrained):
    found = searched(pretrained, *BOTH)
    assert list(found["bests"]) == ["0:10000", "0:9000"]
    assert Path(found["best"]) == pretrained / "best.yaml"
    for name in ("best_max10000_min0.yaml", "best_max9000_min0.yaml"):
        assert (pretrained / name).is_file()
    assert (found["search"]["max_ms"], found["others"][0]["max_ms"]) == (10000, 9000)
    timed = [
        {str(t["configuration"]): t["latency_ms"] for t in search["trials"]}
        for search in (found["search"], *found["others"])
    ]
    assert all(timed[0].get(c, ms) == ms for c, ms in timed[1].items())
    kept = [*(pretrained / "evaluations").rglob("*.json")]
    different = {
        windows_kept(each["configuration"])
        for search in (found["search"], *found["others"])
        for each in (*search["trials"], *found["references"])
    }
    assert len(kept) == len(different)

    shown = tiny.run("search", "--show", "--workspace", pretrained)
    assert shown.code == 0, shown.err
    assert "Search within 0 to 9000 ms" in shown.out
    assert "best for 0:9000 ms" in shown.out
    again = tiny.run("search", "--show", "--workspace", pretrained, "--json").document
    assert again["searches"][0]["best"] == found["search"]["best"]
    assert again["searches"][1]["trials"] == found["others"][0]["trials"]

    made = tiny.run(
        *("export-config", "--budget", "0:9000", "--format", "yaml", "--workspace", pretrained),
        *("--out", pretrained / "exported.yaml"),
    )
    assert made.code == 0, made.err
    second = read_configuration(found["bests"]["0:9000"])
    assert read_configuration(pretrained / "exported.yaml") == second
    refused = tiny.run("export-config", "--budget", "1:2", "--workspace", pretrained)
    assert refused.code == 2
    assert "--budget 0:10000, 0:9000" in " ".join(refused.err.replace("│", " ").split())


def test_the_whole_front_is_searched_in_one_study(pretrained):
    found = searched(pretrained, "--pareto", "--sampler", "random", "--budget", "0:10000")
    assert found["search"]["best"]["confirmed_ms"] > 0
    assert Path(found["best"]).is_file()
    shown = tiny.run("search", "--show", "--workspace", pretrained)
    assert shown.code == 0, shown.err
    again = tiny.run("search", "--show", "--workspace", pretrained, "--json").document
    assert again["searches"][0]["best"] == found["search"]["best"]
    alone = searched(pretrained, "--pareto", "--sampler", "random")
    assert alone["best"] is None
    assert "Front" in tiny.run("search", "--show", "--workspace", pretrained).out


def test_two_workers_and_halving_come_to_what_one_comes_to(pretrained, hostile, monkeypatch):
    words = ("--budget", "0:10000", "--halving", "--trials", 5)
    # workers look for modules where this process does
    monkeypatch.syspath_prepend(tiny.NOT_INSTALLED)
    together = searched(pretrained, *words, "--workers", 2)
    assert not (hostile / "was-run").exists()
    alone = searched(pretrained, *words, "--force")

    def drawn(document):
        trials = document["search"]["trials"]
        return [(t["configuration"], t["score"], t["state"]) for t in trials]

    assert drawn(together) == drawn(alone)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--budget MIN:MAX"),
        (("--budget", "42"), "37:42"),
        (("--budget", "5:4"), "37:42"),
        (("--max", 5), "Missing option '--min'"),
        (("--budget", "0:10000", "--workers", 0), "workers"),
        (("--budget", "0:10000", "--storage", "nonsense://x"), "cannot be used"),
        (("--budget", "0:10000", "--sampler", "grid"), "evolution"),
    ],
)
def test_what_cannot_be_searched_is_refused(pretrained, words, said):
    done = tiny.run("search", *QUICK, *words, "--workspace", pretrained)
    assert done.code == 2, done.err
    assert said in " ".join(done.err.replace("│", " ").split())


def test_nothing_to_show_is_said(pretrained):
    done = tiny.run("search", "--show", "--workspace", pretrained)
    assert done.code == 2
    assert "sparsevit search --max" in done.err


def test_a_search_called_by_name_leaves_the_record_and_the_study_of_the_version_before(pretrained):
    quick = {"population": 2, "parents": 2, "latency": "measured", "latency_seconds": 0.01}
    found = search(max_ms=10000.0, min_ms=0.0, trials=2, workspace=pretrained, **quick)
    assert found.search.best is not None
    record = Workspace.open(pretrained, create=False, readonly=True).last("search").inputs
    weights = record["checkpoint"]["sha256"]
    timing = {
        "scope": "backbone",
        "backend": "eager",
        "img_size": [64, 64],
        "batch_size": 4,
        "precision": "fp32",
        "device": str(found.execution.device),
    }
    assert {k: v for k, v in record.items() if k not in ("config", "config_sha256")} == {
        "checkpoint": record["checkpoint"],
        "interval_ms": [0.0, 10000.0],
        "budgets": [[0.0, 10000.0]],
        "pareto": False,
        "trials": 2,
        "max_candidates": 10000,
        **timing,
        "latency": "measured",
        "max_error": 0.03,
        "sampler": "evolution",
        "seed": 0,
        "population": 2,
        "parents": 2,
        "mutation_prob": 0.1,
        "metric": "bbox_mAP",
        "eval_images": None,
        "halving": False,
        "storage": None,
        "study": None,
    }
    study = optuna.load_study(study_name="max10000_min0", storage=found.storage)
    device = found.execution.device
    identity = study.user_attrs["identity"]
    assert {k: v for k, v in identity.items() if k not in ("space", "sampler")} == {
        "version": 2,
        "interval_ms": [0.0, 10000.0],
        **timing,
        "device": device.type,
        "device_name": device_name(device),
        "latency": "measured",
        "halving": None,
        "metric": "bbox_mAP",
        "eval_images": None,
        "checkpoint": weights,
    }
    with pytest.raises(TypeError, match="trails"):
        search(max_ms=10000.0, min_ms=0.0, trails=2, workspace=pretrained)
