"""The commands, one after the other, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch

from sparsevit.engine.config import load_config
from sparsevit.sparsity import read_configuration

METRICS = {"bbox_mAP", "bbox_mAP_50", "segm_mAP"}
KNOBS = [f"backbone.stages.{name}" for name in ("0", "1", "2_1", "2_2", "3")]


# --- what each made (the session's workspace) ----------------------------------------------------


@pytest.mark.parametrize(("phase", "iterations"), [("pretrain", 4), ("adapt", 4), ("finetune", 2)])
def test_a_training_phase_makes_a_checkpoint_and_a_config(finished, phase, iterations):
    made = finished.documents[phase]
    assert made["run"] == f"{phase} run-001"
    assert made["iterations"] == iterations
    assert made["loss"] > 0
    assert made["resumed"] is False
    assert Path(made["checkpoint"]).parent == Path(made["directory"])
    assert torch.load(made["checkpoint"], weights_only=False)["meta"]["iter"] == iterations
    assert set(next(iter(made["after"].values()))) > METRICS


def test_adapt_validates_dense_and_at_fixed_ratios_before_and_after(finished):
    adapted = finished.documents["adapt"]
    assert (
        list(adapted["before"])
        == list(adapted["after"])
        == [
            "dense",
            "uniform 0.3",
            "uniform 0.6",
        ]
    )
    assert adapted["checkpoint_source"] == adapted["config_source"] == "pretrain run-001"
    assert adapted["sparsity"] is None


def test_the_config_for_the_next_phase_has_nothing_of_this_one(finished):
    for phase in ("pretrain", "adapt", "finetune"):
        cfg = load_config(finished.documents[phase]["config"])
        assert cfg.train_cfg.max_iters == 4
        assert cfg.val_dataloader is not None
        assert "adapt" in cfg.phases
        assert cfg.get("launcher", "none") == "none"
    kind = {
        phase: load_config(finished.documents[phase]["config"]).model.backbone.type
        for phase in ("pretrain", "adapt")
    }
    assert kind == {"pretrain": "SwinTransformer", "adapt": "SparseViT"}


def test_search_writes_the_best_and_the_log_of_the_paper(finished):
    found = finished.documents["search"]
    assert Path(found["best"]) == finished.path / "best.yaml"
    assert list(read_configuration(found["best"])) == KNOBS
    assert Path(found["log"]).name == "search_max10000_min0.txt"
    assert Path(found["log"]).read_text()
    assert Path(found["storage"].removeprefix("sqlite:///")).is_file()
    assert Path(found["plot"]).read_bytes().startswith(b"\x89PNG")
    assert [each["name"].split()[0] for each in found["references"]] == ["dense", "uniform"]
    assert found["img_size"] == [64, 64]
    assert found["search"]["stopped"] == "trials"
    assert len([t for t in found["search"]["trials"] if t["state"] == "scored"]) == 3


def test_finetune_trains_at_the_best_that_search_found(finished):
    best = dict(read_configuration(finished.path / "best.yaml"))
    tuned = finished.documents["finetune"]
    assert tuned["sparsity"] == best
    assert tuned["checkpoint_source"] == "adapt run-001"
    assert load_config(tuned["config"]).model.backbone.pruning_ratios[0][0] == best[KNOBS[0]]


def test_evaluate_takes_the_last_weights_at_their_sparsity(finished):
    scored = finished.documents["evaluate"]
    tuned = finished.documents["finetune"]
    assert scored["sparsity"] == tuned["sparsity"]
    assert scored["checkpoint"] == tuned["checkpoint"]
    assert scored["metrics"] == tuned["after"]["sparse"]
    assert scored["images"] == 6
    assert (scored["split"], set(scored["classes"])) == ("val", {"bbox_mAP", "segm_mAP"})


def test_scores_are_written_where_the_losses_are(finished):
    run = Path(finished.documents["adapt"]["directory"])
    (written,) = run.glob("*/vis_data/scalars.json")
    lines = [json.loads(line) for line in written.read_text(encoding="utf-8").splitlines()]
    scored = [line for line in lines if "dense/bbox_mAP" in line]
    assert [line["step"] for line in scored] == [0, finished.documents["adapt"]["iterations"]]
    after = finished.documents["adapt"]["after"]
    assert scored[-1]["uniform 0.6/bbox_mAP"] == after["uniform 0.6"]["bbox_mAP"]
    assert any(run.glob("*/vis_data/events*"))


# --- what comes after ----------------------------------------------------------------------------


def test_evaluate_of_some_images_dense_or_at_a_file(workspace, tmp_path):
    done = tiny.run("evaluate", "--workspace", workspace, "--dense", "--eval-images", 2, "--json")
    assert done.document["images"] == 2
    assert set(done.document["sparsity"].values()) == {0.0}
    file = tmp_path / "half.yaml"
    file.write_text("pruning_ratios: [0.5, 0.5, 0.5, 0.5]\n")
    done = tiny.run("evaluate", "--workspace", workspace, "--sparsity", file, "--json")
    assert set(done.document["sparsity"].values()) == {0.5}
    assert done.document["sparsity_source"] == str(file)


@pytest.mark.parametrize("scope", ["backbone", "detector"])
def test_latency_of_the_workspaces_model_beside_dense(workspace, scope):
    before = tiny.files(workspace)
    done = tiny.run(
        *("latency", "--workspace", workspace, "--scope", scope, "--compare", "--json"),
        *("--img-size", 64, "--batch-size", 1, "--warmup", 1, "--repeats", 2),
    )
    assert done.code == 0, done.err
    dense, sparse = done.document["rows"]
    assert dense["speedup"] == 1
    assert sparse["gmacs"] < dense["gmacs"]
    assert set(dense["sparsity"].values()) == {0.0}
    assert tiny.files(workspace) == before


def test_latency_with_nothing_there_times_the_papers_backbone_and_writes_nothing(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    words = ("latency", "--img-size", 224, "--repeats", 2, "--warmup", 1, "--batch-size", 1)
    done = tiny.run(*words, "--json")
    assert done.code == 0, done.err
    assert done.document["parameters"] == pytest.approx(27.5e6, rel=0.01)
    # 4.5 GFLOPs of Swin-T at 224 px, of which the classifier has next to nothing
    assert done.document["rows"][0]["gmacs"] == pytest.approx(4.5, rel=0.03)
    assert not list(tmp_path.iterdir())


def test_latency_of_the_papers_backbone_at_a_file(tmp_path):
    file = tmp_path / "cfg2.yaml"
    file.write_text("pruning_ratios: [[.6,.6],[0,0],[.2,.2,.4,.4,.5,.5],[0,0]]\n")
    done = tiny.run(
        *("latency", "--workspace", tmp_path / "none", "--sparsity", file, "--compare", "--json"),
        *("--img-size", "256x224", "--repeats", 1, "--warmup", 1, "--batch-size", 1),
    )
    # a workspace that was named must be there
    assert done.code == 2
    (tmp_path / "none").mkdir()
    done = tiny.run(
        *("latency", "--workspace", tmp_path / "none", "--sparsity", file, "--compare"),
        *("--img-size", "256x224", "--repeats", 1, "--warmup", 1, "--batch-size", 1),
    )
    assert done.code == 0, done.err
    assert "256x224" in done.out


def test_latency_makes_no_dataset(tmp_path, tiny_config):
    done = tiny.run(
        *("latency", tiny_config, "--workspace", tmp_path, "--json"),
        *("--img-size", 64, "--repeats", 1, "--warmup", 1, "--batch-size", 1),
    )
    assert done.code == 0, done.err
    assert not list(tmp_path.iterdir())


def test_an_exported_config_is_what_finetune_made(workspace, tmp_path):
    before = tiny.files(workspace)
    out = tmp_path / "exported.py"
    done = tiny.run("export-config", "--workspace", workspace, "--out", out, "--json")
    assert done.code == 0, done.err
    cfg = load_config(out)
    assert cfg.model.backbone.type == "SparseViT"
    assert cfg.train_cfg.max_iters == 2
    assert cfg.val_dataloader is not None
    assert tiny.files(workspace) == before


def test_status_shows_every_phase(workspace):
    document = tiny.run("status", "--workspace", workspace, "--json").document
    assert [run["phase"] for run in document["runs"]] == [
        "pretrain",
        "adapt",
        "search",
        "finetune",
        "evaluate",
    ]
    assert {run["status"] for run in document["runs"]} == {"finished"}
    shown = tiny.run("status", "--workspace", workspace)
    assert "finetune" in shown.out
    assert shown.err == ""


def test_a_command_in_a_process_of_its_own_prints_one_document_alone(workspace):
    done = tiny.run_alone(
        "evaluate", "--workspace", workspace, "--json", env=tiny.user_environment()
    )
    assert done.code == 0, done.err
    assert set(json.loads(done.out)["metrics"]) > METRICS
    assert "Traceback" not in done.err
    assert "mmengine" not in done.err


def test_without_json_stdout_holds_the_result_and_stderr_the_rest(workspace):
    done = tiny.run("evaluate", "--workspace", workspace)
    assert "6 images" in done.out
    assert "config:" not in done.out
    assert "config:" in done.err


# --- again ---------------------------------------------------------------------------------------

AGAIN = {
    "pretrain": [],
    "adapt": [],
    "search": tiny.SEARCH,
    "finetune": [],
}


@pytest.mark.parametrize("phase", AGAIN)
def test_a_finished_phase_says_so_and_asks_for_force_or_resume(workspace, tiny_config, phase):
    words = [phase, *([tiny_config] if phase == "pretrain" else []), *AGAIN[phase]]
    before = tiny.files(workspace)
    done = tiny.run(*words, "--workspace", workspace)
    assert done.code == 2
    assert "already done" in done.err
    assert "--force" in done.err
    assert "--resume" in done.err
    assert done.err.count("Error") == 1
    assert done.out == ""
    after = tiny.files(workspace)
    assert after == before


def test_force_runs_a_phase_again_beside_the_old_run(workspace):
    done = tiny.run("finetune", "--workspace", workspace, "--force", "--json")
    assert done.code == 0, done.err
    assert done.document["run"] == "finetune run-002"
    assert (workspace / "finetune/run-001").is_dir()


def test_resume_goes_on_with_a_finished_run_and_trains_no_more(workspace):
    done = tiny.run("finetune", "--workspace", workspace, "--resume", "--json")
    assert done.code == 0, done.err
    assert done.document["run"] == "finetune run-001"
    assert done.document["resumed"] is True
    assert done.document["iterations"] == 2


def test_more_trials_of_a_finished_search_go_on_from_it(workspace):
    words = ["search", *tiny.SEARCH, "--trials", 5]
    done = tiny.run(*words, "--workspace", workspace, "--resume", "--json")
    assert done.code == 0, done.err
    assert done.document["search"]["resumed_from"] >= 3
    assert len([t for t in done.document["search"]["trials"] if t["state"] == "scored"]) == 5


def test_another_seed_is_another_run(workspace):
    done = tiny.run("finetune", "--workspace", workspace, "--seed", 1, "--json")
    assert done.document["run"] == "finetune run-002"


def test_adapt_may_skip_validating_before_and_at_ratios(pretrained):
    done = tiny.run(
        *("adapt", "--workspace", pretrained, "--no-validate-before", "--validate-at", ""),
        *("--eval-images", 1, "--json", "--set", "phases.adapt.train_cfg.max_iters=1"),
    )
    assert done.code == 0, done.err
    assert done.document["before"] == {}
    assert list(done.document["after"]) == ["dense"]
