"""What a user may get wrong: one message with the remedy, exit code 2, nothing harmed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import tiny
import torch

PHASES = ["pretrain", "adapt", "search", "finetune", "evaluate"]


def refused(folder, *words, **how):
    """What is said of a command that is refused; the workspace is as it was."""
    before = tiny.files(folder)
    done = tiny.run(*words, **how)
    assert done.code == 2, done.err
    assert done.out == ""
    assert "Traceback" not in done.err
    assert done.err.count("─ Error ─") == 1
    after = tiny.files(folder)
    assert after == before
    return " ".join(line.strip("│ ") for line in done.err.splitlines()).replace("  ", " ")


def words_of(phase, *more):
    return [phase, *(tiny.SEARCH if phase == "search" else []), *more]


@pytest.mark.parametrize("phase", [*PHASES, "latency", "export-config"])
def test_a_config_that_is_missing(workspace, phase):
    said = refused(workspace, *words_of(phase, "nowhere.py", "--workspace", workspace))
    assert "There is no config nowhere.py" in said


def test_a_config_whose_name_is_nearly_right(workspace):
    said = refused(workspace, "pretrain", "mask_rcnn_swin_shape", "--workspace", workspace)
    assert "Did you mean demo/mask_rcnn_swin_shapes.py" in said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model = dict(\n", "line 1"),
        ("model = dict(type='MaskRCNN')\nx = 1 / 0\n", "ZeroDivisionError"),
        (
            "custom_imports = dict(imports=['nothing_like_this'])\n",
            "imports a module that is not installed",
        ),
        ("_base_ = './nowhere.py'\n", "inherits from a config that does not exist"),
        ("train_cfg = dict()\n", "has no model"),
        ("model = dict(type='MaskRCNNN', backbone=dict(type='SwinTransformer'))\n", "'MaskRCNN'"),
        ("model = dict(type='RetinaNet', backbone=dict(type='ResNet'))\n", "cannot be made sparse"),
    ],
    ids=["syntax", "runtime", "import", "base", "no-model", "type", "no-swin"],
)
def test_a_config_with_an_error(workspace, tmp_path, text, says):
    path = tmp_path / "wrong.py"
    path.write_text(text)
    checkpoint = workspace / "adapt/run-001/iter_4.pth"
    assert says in refused(workspace, "adapt", path, checkpoint, "--workspace", workspace)


@pytest.mark.parametrize("phase", ["adapt", "search", "finetune", "evaluate"])
def test_a_checkpoint_that_is_missing(workspace, tiny_config, phase):
    words = words_of(phase, tiny_config, "nowhere.pth", "--workspace", workspace)
    assert "nowhere.pth is not a file" in refused(workspace, *words)


def damaged(kind, path):
    if kind == "text":
        path.write_text("not a checkpoint")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut":
        torch.save({"state_dict": {"a": torch.zeros(10_000)}}, path)
        path.write_bytes(path.read_bytes()[:5000])
    else:
        torch.save({"state_dict": {"fc.weight": torch.zeros(3, 3)}}, path)


@pytest.mark.parametrize(
    ("kind", "phase"),
    [("text", "evaluate"), ("empty", "evaluate"), ("cut", "evaluate"), ("cut", "pretrain")]
    + [("of-another-model", phase) for phase in PHASES],
)
def test_a_checkpoint_that_is_none_or_of_another_model(
    workspace, tiny_config, tmp_path, kind, phase
):
    path = tmp_path / "wrong.pth"
    damaged(kind, path)
    before = tiny.run("status", "--workspace", workspace, "--json").document["runs"]
    done = tiny.run(*words_of(phase, tiny_config, path, "--workspace", workspace, "--json"))
    assert done.code == 2, done.err
    assert "Traceback" not in done.err
    assert "wrong.pth" in done.document["error"]["problem"]
    assert done.document["error"]["remedy"]
    runs = tiny.run("status", "--workspace", workspace, "--json").document["runs"]
    finished = [run for run in runs if run["status"] == "finished"]
    assert finished == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["adapt", "--validate-at", "1.2"], "1.2"),
        (["adapt", "--validate-at", "0.3;0.6"], "not a list of ratios"),
        (["adapt", "--validate-at", "nan"], "nan"),
        (["search", "--min", 5, "--max", 4], "--min below --max"),
        (["search", "--min", -1, "--max", 4], "--min below --max"),
        (["search", "--min", 0, "--max", "nan"], "--min below --max"),
        (["search", "--max", 5], "Missing option '--min'"),
        (["search", *tiny.SEARCH, "--metric", "mIoU"], "Use one of: bbox_mAP"),
        (["search", *tiny.SEARCH, "--img-size", "abc"], "not a size"),
        (["search", *tiny.SEARCH, "--device", "cuda:7"], "cuda:7"),
        (["search", *tiny.SEARCH, "--parents", 5, "--population", 3], "parents"),
        (["search", *tiny.SEARCH, "--sampler", "grid"], "evolution"),
        (["latency", "--img-size", "0"], "not a size"),
        (["latency", "--img-size", "1x2x3"], "not a size"),
        (["latency", "--img-size", "8"], "32x32"),
        (["latency", "--device", "cuda:7"], "Available here: cpu"),
        (["latency", "--device", "tpu"], "tpu"),
        (["latency", "--precision", "int8"], "fp32"),
        (["latency", "--batch-size", 0], "--batch-size"),
        (["evaluate", "--device", "cuda:7"], "sparsevit doctor"),
        (["evaluate", "--eval-images", 0], "--eval-images"),
        (["finetune", "--force", "--resume"], "cannot be used together"),
        (["evaluate", "--set", "model.backbone"], "key=value"),
        (["evaluate", "--set", "model.backbone.pruning_ratios=1.2"], "1.2"),
        (["evaluate", "--set", "model.backbone.depths=[2,2]"], "cannot be built"),
        (
            ["evaluate", "--set", "val_dataloader.dataset.pipeline.0.type=Nothing"],
            "is not registered",
        ),
        # what is before a dot is a scope to mmengine
        (["finetune", "--force", "--set", "optim_wrapper.type=../../x"], "../../x"),
        (["adapt", "--devices", 2, "--launcher", "pytorch"], "Give only one of them"),
        (["adapt", "--launcher", "cloud"], "none"),
        (["adapt", "--devices", 0], "--devices"),
        (["adapt", "--sed", 1], "--seed"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, list) else "",
)
def test_a_wrong_option(workspace, words, says):
    assert says in refused(workspace, *words, "--workspace", workspace)


def test_an_interval_that_cannot_be_met_says_which_can(workspace):
    words = ["search", "--min", 100_000, "--max", 200_000, "--latency-seconds", 0.01]
    done = tiny.run(*words, "--workspace", workspace)
    assert done.code == 2
    said = " ".join(line.strip("│ ") for line in done.err.splitlines())
    assert "the sparsest takes" in said
    assert "the dense model" in said
    assert "Choose an interval within" in said


KNOBS = ("0", "1", "2_1", "2_2", "3")


def sparsity(**changed):
    values = {f"backbone.stages.{name}": 0.2 for name in KNOBS}
    return {"sparsity": {**values, **{f"backbone.stages.{k[1:]}": v for k, v in changed.items()}}}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (sparsity(_0=1.2), "backbone.stages.0"),
        (sparsity(_0="much"), "backbone.stages.0"),
        (sparsity(_2_1=0.4), "backbone.stages.2_2"),
        (sparsity(_9=0.2), "backbone.stages.9"),
        ({"sparsity": {"backbone.stages.0": 0.2}}, "backbone.stages.1"),
        ({"sparsity": [0.2]}, "wrong.yaml"),
        ({"pruning_ratios": [[0.2, 0.2]]}, "wrong.yaml"),
        ({"pruning_ratios": [[0.2, 0.3], 0, 0, 0]}, "backbone.stages.0"),
        ([], "wrong.yaml"),
        ("{", "wrong.yaml"),
        (None, "wrong.yaml"),
    ],
    ids=[
        "no-ratio",
        "text",
        "falls",
        "unknown",
        "missing",
        "list",
        "short",
        "pair-disagrees",
        "no-mapping",
        "no-yaml",
        "no-file",
    ],
)
def test_a_sparsity_file_that_is_wrong(workspace, tmp_path, content, says):
    path = tmp_path / "wrong.yaml"
    if content is not None:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    said = refused(workspace, "evaluate", "--sparsity", path, "--workspace", workspace)
    assert says in said.replace(" ", "") or says in said


@pytest.mark.parametrize("phase", ["finetune", "latency", "export-config"])
def test_every_command_reads_a_sparsity_file_alike(workspace, tmp_path, phase):
    path = tmp_path / "wrong.yaml"
    path.write_text(json.dumps(sparsity(_0=1.2)))
    said = refused(workspace, phase, "--sparsity", path, "--workspace", workspace)
    assert "backbone.stages.0" in said


def test_finetune_without_any_sparsity(pretrained):
    assert "Run `sparsevit search` first" in refused(
        pretrained, "finetune", "--workspace", pretrained
    )


@pytest.mark.parametrize("phase", ["adapt", "search", "finetune", "evaluate"])
def test_a_phase_before_its_weights_are_there_makes_no_dataset(tmp_path, phase):
    said = refused(tmp_path, *words_of(phase, "--workspace", tmp_path))
    assert "Run `sparsevit pretrain` first" in said


@pytest.mark.parametrize("phase", PHASES)
def test_a_workspace_that_cannot_be_written(tmp_path, tiny_config, phase):
    file = tmp_path / "file"
    file.write_text("")
    said = refused(tmp_path, *words_of(phase, tiny_config, "--workspace", file / "workspace"))
    assert "is a file" in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_workspace_without_permission(tmp_path, tiny_config):
    tmp_path.chmod(0o500)
    said = refused(tmp_path, "pretrain", tiny_config, "--workspace", tmp_path / "workspace")
    assert "cannot be written" in said


@pytest.mark.parametrize("key", ["annotations", "images", "categories"])
@pytest.mark.parametrize("phase", ["pretrain", "adapt", "evaluate"])
def test_a_dataset_that_holds_nothing(workspace, tiny_config, tmp_path, phase, key):
    source = next(workspace.glob("data/*/annotations/instances_train.json"))
    content = json.loads(source.read_bytes())
    content[key] = []
    path = tmp_path / "empty.json"
    path.write_text(json.dumps(content))
    split = "val" if phase == "evaluate" else "train"
    checkpoint = workspace / "pretrain/run-001/iter_4.pth"
    words = [phase, tiny_config, checkpoint, "--set"]
    words.append(f"{split}_dataloader.dataset.ann_file='{path}'")
    assert f"has no {key}" in refused(workspace, *words, "--workspace", workspace)


def test_a_second_writer_is_told_who_writes(workspace):
    writes = (
        "import sys, time; from sparsevit.workspace import Workspace\n"
        f"with Workspace.open({str(workspace)!r}).run('finetune', {{'by': 'the first'}}):\n"
        "    print('ready', flush=True); sys.stdin.read()"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", writes], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert first.stdout.readline() == b"ready\n"
        said = refused(workspace, "finetune", "--force", "--workspace", workspace)
    finally:
        first.communicate()
    assert str(first.pid) in said


def test_with_json_the_error_is_the_one_document(workspace):
    done = tiny.run("adapt", "nowhere.py", "--workspace", workspace, "--json")
    assert done.code == 2
    assert done.document["error"]["exit_code"] == 2
    assert "nowhere.py" in done.document["error"]["problem"]
