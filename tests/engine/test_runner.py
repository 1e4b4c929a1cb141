"""Training: what is started from, what is written where, and how a broken run goes on."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from rich.console import Console
from torch import nn

from sparsevit.engine.config import load_config, sparsify_config
from sparsevit.engine.datasets import provide_embedded
from sparsevit.engine.runner import (
    TRAINING_CONFIG,
    QuietRunner,
    build_model,
    forget_first_weights,
    newest_checkpoint,
    train,
    training_config,
)
from sparsevit.engine.schedule import phase_config
from sparsevit.errors import UserError
from sparsevit.report.reporter import ConsoleReporter
from sparsevit.sparsity.handle import SparsityHandle

SEEN = []


class Broken(Exception):
    pass


@HOOKS.register_module(force=True)
class LookOnHook(Hook):
    """Notes what every iteration was given, and may break off before one."""

    priority = "LOWEST"

    def __init__(self, break_at=None):
        self.break_at = break_at

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.break_at:
            raise Broken
        samples = data_batch["data_samples"]
        shown = [s.img_id for s in samples]
        SEEN.append((runner.iter, shown, SparsityHandle(runner.model).get()))


@pytest.fixture(scope="module")
def cfg(tiny_config, tmp_path_factory):
    cfg = sparsify_config(load_config(tiny_config))
    provide_embedded(cfg, tmp_path_factory.mktemp("data"))
    return cfg


def watched(cfg, break_at=None):
    cfg = copy.deepcopy(cfg)
    cfg.custom_hooks = [{"type": "mmengine.LookOnHook", "break_at": break_at}]
    SEEN.clear()
    return cfg


def config_of(cfg, tmp_path, launcher="none", resume_from=None, has_weights=False):
    return training_config(cfg, tmp_path, 3, launcher, resume_from, has_weights)


# --- a run ---------------------------------------------------------------------------------------


def test_a_run_writes_checkpoints_and_events_and_nothing_on_stdout(cfg, tmp_path, capfd):
    stream = Console(file=open(os.devnull, "w"))  # noqa: SIM115
    folder = tmp_path / "adapt" / "run-001"
    made = train(
        watched(cfg), folder, random_sparsity=True, seed=1, reporter=ConsoleReporter(stream)
    )
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "mmengine" not in printed.err
    assert made.checkpoint == folder / "iter_4.pth"
    assert made.iterations == len(SEEN) == 4
    assert made.loss > 0
    assert (folder / TRAINING_CONFIG).is_file()
    assert not (folder / "tiny.py").exists()
    assert list(folder.glob("*/vis_data/scalars.json"))
    assert list(folder.glob("*/*.log"))
    # two are kept, and the last is one of them
    assert sorted(p.name for p in folder.glob("*.pth")) == ["iter_3.pth", "iter_4.pth"]
    assert len({configuration for _, _, configuration in SEEN}) > 1
    assert not any(SparsityHandle(made.model).get().values())


def test_two_runs_of_a_process_keep_their_events_apart(cfg, tmp_path):
    cfg = copy.deepcopy(cfg)
    cfg.train_cfg.max_iters = 1
    for phase in ("pretrain", "adapt"):
        train(cfg, tmp_path / phase / "run-001")
    for phase in ("pretrain", "adapt"):
        assert len(list((tmp_path / phase).rglob("scalars.json"))) == 1


def test_a_run_that_broke_off_goes_on_with_the_same_images_and_ratios(cfg, tmp_path):
    # not with the same flips: augmentation and sampling of boxes draw from generators whose state
    # is in no checkpoint
    train(watched(cfg), tmp_path / "whole", random_sparsity=True, seed=7)
    whole = list(SEEN)
    with pytest.raises(UserError, match="Broken"):
        train(watched(cfg, break_at=2), tmp_path / "broken", random_sparsity=True, seed=7)
    assert whole[:2] == SEEN
    made = train(watched(cfg), tmp_path / "broken", resume=True, random_sparsity=True, seed=7)
    assert whole[2:] == SEEN
    assert made.iterations == 4


def test_a_checkpoint_that_a_kill_cut_short_is_passed_over(cfg, tmp_path):
    with pytest.raises(UserError, match="Broken"):
        train(watched(cfg, break_at=3), tmp_path)
    last = tmp_path / "iter_3.pth"
    assert newest_checkpoint(tmp_path) == last
    last.write_bytes(last.read_bytes()[:-1000])
    assert newest_checkpoint(tmp_path) == tmp_path / "iter_2.pth"
    train(watched(cfg), tmp_path, resume=True)
    assert [iteration for iteration, _, _ in SEEN] == [2, 3]


def test_a_folder_without_checkpoints_is_begun_anew(cfg, tmp_path):
    assert newest_checkpoint(tmp_path) is None
    (tmp_path / "iter_1.pth").write_bytes(b"")
    assert newest_checkpoint(tmp_path) is None
    cfg = watched(cfg)
    cfg.train_cfg.max_iters = 1
    train(cfg, tmp_path, resume=True)
    assert [iteration for iteration, _, _ in SEEN] == [0]


def test_a_seed_gives_the_same_run_again(cfg, tmp_path):
    runs = []
    for name in ("a", "b"):
        made = train(watched(cfg), tmp_path / name, random_sparsity=True, seed=3)
        runs.append((list(SEEN), made.loss))
    assert runs[0][0] == runs[1][0]
    assert runs[0][1] == pytest.approx(runs[1][1], rel=1e-4)
    train(watched(cfg), tmp_path / "c", random_sparsity=True, seed=4)
    assert runs[0][0] != SEEN


def test_a_missing_file_is_named(cfg, tmp_path):
    cfg = copy.deepcopy(cfg)
    cfg.train_dataloader.dataset.ann_file = "annotations/none.json"
    with pytest.raises(UserError, match=r"missing: .*none\.json"):
        train(cfg, tmp_path)


def test_weights_of_another_model_are_refused(cfg, tmp_path):
    torch.save({"state_dict": {"fc.weight": torch.zeros(3)}}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other\.pth"):
        train(cfg, tmp_path / "run", start_from=tmp_path / "other.pth")


# --- its config ----------------------------------------------------------------------------------


def test_the_users_config_is_not_changed(cfg, tmp_path):
    before = copy.deepcopy(cfg.to_dict())
    config_of(cfg, tmp_path, "pytorch", tmp_path / "x.pth", True)
    assert cfg.to_dict() == before


@pytest.mark.parametrize("cuda", [False, True])
def test_mixed_precision_falls_back_where_there_is_no_accelerator(cfg, tmp_path, monkeypatch, cuda):
    cfg = copy.deepcopy(cfg)
    cfg.optim_wrapper.type = "AmpOptimWrapper"
    cfg.optim_wrapper.loss_scale = "dynamic"
    cfg.optim_wrapper.dtype = "bfloat16"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    wrapper = config_of(cfg, tmp_path).optim_wrapper
    assert wrapper.type == ("AmpOptimWrapper" if cuda else "OptimWrapper")
    assert ("loss_scale" in wrapper, "dtype" in wrapper) == (cuda, cuda)


def test_mixed_precision_on_a_cpu_trains(cfg, tmp_path):
    cfg = copy.deepcopy(cfg)
    cfg.optim_wrapper.update(type="AmpOptimWrapper", loss_scale="dynamic")
    cfg.train_cfg.max_iters = 1
    assert train(cfg, tmp_path).loss > 0


def test_several_processes_allow_for_blocks_that_are_skipped(cfg, tmp_path):
    wrapper = config_of(cfg, tmp_path, "pytorch").model_wrapper_cfg
    assert wrapper["find_unused_parameters"] is True
    assert config_of(cfg, tmp_path).get("model_wrapper_cfg") is None


def test_a_run_from_a_checkpoint_forgets_where_the_config_would_start(cfg, tmp_path):
    cfg = copy.deepcopy(cfg)
    cfg.model.backbone.init_cfg = {"type": "Pretrained", "checkpoint": "https://nowhere/swin.pth"}
    cfg.model.neck.init_cfg = {"type": "Xavier", "layer": "Conv2d"}
    kept = config_of(cfg, tmp_path).model
    assert kept.backbone.init_cfg.checkpoint.startswith("https")
    forgotten = config_of(cfg, tmp_path, has_weights=True).model
    assert forgotten.backbone.init_cfg is None
    assert forgotten.neck.init_cfg.type == "Xavier"


def test_weights_are_forgotten_however_deep_they_lie():
    model = {"teachers": [{"backbone": {"init_cfg": {"type": "Pretrained", "checkpoint": "x"}}}]}
    forget_first_weights(model)
    assert model["teachers"][0]["backbone"]["init_cfg"] is None


@pytest.mark.parametrize(("interval", "validates"), [(1, True), (4, False), (10**6, False)])
def test_validation_at_the_very_end_is_left_to_the_phase(cfg, tmp_path, interval, validates):
    cfg = copy.deepcopy(cfg)
    cfg.train_cfg.val_interval = interval
    assert (config_of(cfg, tmp_path).val_dataloader is not None) is validates


def test_the_seed_and_what_else_the_config_says_of_randomness(cfg, tmp_path):
    cfg = copy.deepcopy(cfg)
    cfg.randomness = {"seed": 99, "deterministic": True}
    assert config_of(cfg, tmp_path).randomness == {"seed": 3, "deterministic": True}


def test_tensorboard_is_written_where_it_is_installed(cfg, tmp_path, monkeypatch):
    def backends():
        return [b["type"] for b in config_of(cfg, tmp_path).visualizer["vis_backends"]]

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert backends() == ["LocalVisBackend"]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert backends() == ["LocalVisBackend", "TensorboardVisBackend"]
    cfg = copy.deepcopy(cfg)
    cfg.visualizer = {"name": "x", "vis_backends": [{"type": "WandbVisBackend"}]}
    assert backends() == ["WandbVisBackend", "LocalVisBackend", "TensorboardVisBackend"]
    assert "name" not in config_of(cfg, tmp_path).visualizer


def test_a_sparsity_hook_of_the_config_leaves_the_ratios_to_the_run(cfg, tmp_path):
    cfg = watched(phase_config(cfg, "finetune"))
    cfg.custom_hooks.append({"type": "RandomSparsityHook"})
    cfg.train_cfg.max_iters = 1
    cfg.model.backbone.pruning_ratios = 0.5
    train(cfg, tmp_path)
    assert {set(configuration.values()) == {0.5} for _, _, configuration in SEEN} == {True}


# --- a detector ----------------------------------------------------------------------------------


def test_a_detector_is_built_for_evaluation_with_its_weights(cfg, finished):
    path = finished.documents["adapt"]["checkpoint"]
    model, said = build_model(cfg, path)
    assert not model.training
    assert "weights" in said
    weights = torch.load(path, weights_only=False)["state_dict"]
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())


def test_the_config_in_a_checkpoint_is_that_of_the_training(finished):
    made = finished.documents["adapt"]
    text = torch.load(made["checkpoint"], weights_only=False)["meta"]["cfg"]
    kept = Config.fromstring(text, ".py").to_dict()
    written = load_config(Path(made["directory"], TRAINING_CONFIG)).to_dict()
    for key in ("model", "train_dataloader", "optim_wrapper", "default_hooks", "work_dir"):
        assert kept[key] == written[key]


def test_a_detector_needs_no_network_for_weights_that_are_replaced(cfg):
    cfg = copy.deepcopy(cfg)
    cfg.model.backbone.init_cfg = {"type": "Pretrained", "checkpoint": "https://nowhere/swin.pth"}
    model, said = build_model(cfg)
    assert said is None
    assert cfg.model.backbone.init_cfg is not None
    assert not model.training


def test_processes_without_a_gpu_share_no_statistics(monkeypatch):
    monkeypatch.setattr(Runner, "wrap_model", lambda self, wrapper_cfg, model: model)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    given = nn.Sequential(nn.SyncBatchNorm(4))
    names = list(given.state_dict())
    model = QuietRunner.wrap_model(QuietRunner.__new__(QuietRunner), None, given)
    assert not any(isinstance(part, nn.SyncBatchNorm) for part in model.modules())
    assert list(model.state_dict()) == names
    assert model(torch.ones(2, 4, 3, 3)).shape == (2, 4, 3, 3)
