"""`sparsevit export-config` writes what plain mmdet trains and tests, and says what it took."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import yaml
from mmengine.config import Config

from sparsevit.cli.main import main
from sparsevit.engine.config import dump_config, load_config
from sparsevit.errors import UserError
from sparsevit.phases.export_config import export_config
from sparsevit.sparsity.files import read_configuration, write_configuration
from sparsevit.workspace import Workspace

SMALL = """
_base_ = "mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py"
model = dict(
    backbone=dict(embed_dims=12, depths=[2, 2, 4, 2], num_heads=[1, 2, 4, 4], init_cfg=None),
    neck=dict(in_channels=[12, 24, 48, 96]),
)
"""
KNOBS = ["stages.0", "stages.1", "stages.2_1", "stages.2_2", "stages.3"]
RATIOS = dict(zip([f"backbone.{k}" for k in KNOBS], [0.5, 0.0, 0.2, 0.4, 0.1], strict=True))
NESTED = [[0.5, 0.5], [0.0, 0.0], [0.2, 0.2, 0.4, 0.4], [0.1, 0.1]]

# mmengine and mmdet alone: nothing here names sparsevit
PLAIN_MMDET = """
import sys, torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
cfg = Config.fromfile(sys.argv[1])
init_default_scope(cfg.get("default_scope", "mmdet"))
from mmdet.registry import HOOKS, MODELS
model = MODELS.build(cfg.model).eval()
with torch.no_grad():
    results = model.predict(
        torch.zeros(1, 3, 64, 64),
        [__import__("mmdet.structures").structures.DetDataSample(
            metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64), scale_factor=(1.0, 1.0)))],
    )
print(type(model.backbone).__name__, model.backbone.pruning_ratios, len(results))
"""


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """An empty folder to work in, and no workspace but its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPARSEVIT_WORKSPACE", raising=False)


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.py"
    path.write_text(SMALL)
    return path


@pytest.fixture
def sparsity(tmp_path):
    return write_configuration(tmp_path / "given.yaml", RATIOS)


def finished(workspace, phase, **files):
    """A finished run of ``phase`` that left these outputs (key -> text)."""
    with workspace.run(phase, {"of": "a test"}) as run:
        for key, text in files.items():
            path = run.directory / f"{key}{'.yaml' if key == 'best' else '.py'}"
            path.write_text(text)
            run.update(outputs={key: path})


def test_plain_mmdet_builds_and_runs_what_was_exported(small, sparsity, tmp_path, capsys):
    out = tmp_path / "exported.py"
    assert main(["export-config", str(small), "--sparsity", str(sparsity), "--out", str(out)]) == 0
    assert str(out) in capsys.readouterr().out.replace("\n", "")
    text = out.read_text()
    assert "_base_" not in text
    done = subprocess.run(
        [sys.executable, "-c", PLAIN_MMDET, str(out)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == f"SparseViT {NESTED} 1"


def test_the_exported_config_is_the_given_one_but_for_its_sparsity(small, sparsity):
    result = export_config(small, sparsity=sparsity)
    Path("out.py").write_text(result.text)
    exported = Config.fromfile("out.py").to_dict()
    given = load_config(small).to_dict()
    assert exported["custom_imports"]["imports"] == ["sparsevit.models"]
    assert exported.pop("custom_imports")
    backbone = exported["model"]["backbone"]
    assert backbone.pop("pruning_ratios") == NESTED
    assert backbone.pop("type") == "SparseViT"
    assert given["model"]["backbone"].pop("type") == "SwinTransformer"
    assert exported == given
    assert result.sparsity == RATIOS
    assert result.sparsity_source == str(sparsity)


def test_standard_output_is_the_config_and_nothing_else(small, sparsity, capsys):
    arguments = ["export-config", str(small), "--sparsity", str(sparsity)]
    assert main([*arguments, "--set", "work_dir=[markup]/here"]) == 0
    Path("out.py").write_text(capsys.readouterr().out)
    cfg = Config.fromfile("out.py")
    assert cfg.model.backbone.pruning_ratios == NESTED
    assert cfg.work_dir == "[markup]/here"


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_the_configuration_alone_reads_back(small, sparsity, capsys, form):
    arguments = ["export-config", str(small), "--sparsity", str(sparsity)]
    assert main([*arguments, "--format", form]) == 0
    printed = capsys.readouterr().out
    document = json.loads(printed) if form == "json" else yaml.safe_load(printed)
    assert document == {"sparsity": RATIOS, "pruning_ratios": NESTED}
    assert main([*arguments, "--out", f"alone.{form}"]) == 0
    assert read_configuration(f"alone.{form}").to_dict() == RATIOS


def test_with_json_there_is_one_document(small, sparsity, capsys):
    arguments = ["export-config", str(small), "--sparsity", str(sparsity), "--out", "o.py"]
    assert main([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["format"] == "py"
    assert document["out"] == "o.py"
    assert document["sparsity"] == RATIOS
    assert document["text"] == Path("o.py").read_text()


# --- what is taken where nothing is given --------------------------------------------------------


def test_config_and_sparsity_come_from_the_workspace(small):
    workspace = Workspace.open("ws")
    finished(workspace, "pretrain", config="model = 'of pretrain'")
    finished(workspace, "finetune", config=dump_config(load_config(small)))
    finished(workspace, "search", best=yaml.safe_dump({"sparsity": RATIOS}))
    result = export_config(workspace="ws")
    assert result.sparsity == RATIOS
    assert "the best found" in result.sparsity_source
    assert "finetune run-001" in result.config_source
    Path("out.py").write_text(result.text)
    cfg = Config.fromfile("out.py")
    # as finetune trains where the config is the workspace's
    assert cfg.train_cfg.max_epochs == 36
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(1e-5)


def test_a_config_with_ratios_keeps_them_whatever_a_search_found(small):
    workspace = Workspace.open("ws")
    finished(workspace, "search", best=yaml.safe_dump({"sparsity": RATIOS}))
    override = "model.backbone.pruning_ratios=[.3,0.,.1,0.]"
    result = export_config(small, workspace="ws", overrides=[override])
    assert list(result.sparsity.values()) == [0.3, 0.0, 0.1, 0.1, 0.0]
    assert "the config" in result.sparsity_source
    assert set(export_config(small, workspace="ws").sparsity.values()) == set(RATIOS.values())


def test_random_ratios_stay_random_until_fixed_ones_are_given(sparsity):
    overrides = ["model.backbone.depths=[2,2,4,2]"]
    text = export_config("mask_rcnn_sparsevit_saa", overrides=overrides).text
    assert "RandomSparsityHook" in text
    fixed = export_config("mask_rcnn_sparsevit_saa", overrides=overrides, sparsity=sparsity).text
    assert "RandomSparsityHook" not in fixed


def test_with_nothing_at_hand_it_is_the_demos(tmp_path):
    result = export_config(workspace=tmp_path / "none")
    assert result.config_source.endswith("the embedded demo")
    assert set(result.sparsity.values()) == {0.0}
    assert "phases = " not in result.text
    assert not (tmp_path / "none").exists()


def test_a_file_name_cannot_put_code_into_the_config(tmp_path):
    path = tmp_path / "a\nraise SystemExit(3)\n.py"
    path.write_text(SMALL)
    text = export_config(path).text
    Path("out.py").write_text(text)
    assert Config.fromfile("out.py").model.type == "MaskRCNN"


# --- wrong inputs --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["none.py"], "There is no config none.py"),
        (["small.py", "--sparsity", "none.yaml"], "none.yaml"),
        (["small.py", "--sparsity", "high.yaml"], "1.2"),
        (["small.py", "--format", "toml"], "no format"),
        (["small.py", "--out", "x.txt"], "does not have the suffix of"),
        (["small.py", "--out", "x.py", "--format", "json"], "not a valid name for the format json"),
        (["small.py", "--out", "small.py"], "already exists"),
        (["small.py", "--set", "model.type"], "key=value"),
        (["small.py", "--workspace", "small.py"], "not a directory"),
        (["small.py", "--out", "small.py/x.py"], "cannot be written"),
        (["mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"], "cannot be made sparse"),
    ],
)
def test_wrong_input_is_answered_with_exit_code_2(small, capsys, arguments, says):
    Path("high.yaml").write_text(yaml.safe_dump({"sparsity": {**RATIOS, "backbone.stages.0": 1.2}}))
    assert main(["export-config", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert says in " ".join(captured.err.replace("│", " ").split())
    assert "Traceback" not in captured.err
    assert small.read_text() == SMALL


def test_force_replaces_the_file(small):
    out = Path("old.py")
    out.write_text("old")
    with pytest.raises(UserError, match="already exists"):
        export_config(small, out=out)
    export_config(small, out=out, force=True)
    assert out.read_text().startswith("# Exported by sparsevit")


def test_mmdets_inferencer_finds_what_the_phases_find(finished, tmp_path):
    import torch
    from mmdet.apis import DetInferencer

    from sparsevit.engine.evaluation import Evaluation
    from sparsevit.engine.runner import build_model

    out = tmp_path / "exported.py"
    said = tiny.run("export-config", "--workspace", finished.path, "--out", out, "--json")
    assert said.code == 0, said.err
    exported = Config.fromfile(out)
    checkpoint = Path(finished.documents["finetune"]["checkpoint"])
    assert exported.load_from == said.document["checkpoint"] == str(checkpoint)
    assert f"# Checkpoint: {checkpoint}" in out.read_text()
    assert exported.model.backbone.pruning_ratios
    metainfo = exported.test_dataloader.dataset.metainfo
    assert len(metainfo.palette) == len(metainfo.classes) == 3

    inferencer = DetInferencer(str(out), exported.load_from, device="cpu", show_progress=False)
    assert inferencer.visualizer.dataset_meta["classes"] == metainfo.classes
    cfg = load_config(finished.documents["finetune"]["config"])
    model, _ = build_model(cfg, checkpoint)
    evaluation = Evaluation(cfg)
    found = 0
    with torch.no_grad():
        for batch in evaluation.loader:
            for sample in model.val_step(batch):
                # its batches have one image each, and the windows kept do not depend on that
                theirs = inferencer(sample.img_path, return_datasamples=True)["predictions"][0]
                ours, mine = sample.pred_instances, theirs.pred_instances
                torch.testing.assert_close(mine.bboxes, ours.bboxes, atol=1e-2, rtol=1e-3)
                torch.testing.assert_close(mine.scores, ours.scores, atol=1e-4, rtol=1e-3)
                assert torch.equal(mine.labels, ours.labels)
                found += len(ours)
    assert found
