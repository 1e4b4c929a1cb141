"""What a phase changes in a config."""

from __future__ import annotations

import pytest

from sparsevit.engine.config import load_config, sparsify_config
from sparsevit.engine.schedule import phase_config, with_paper_phases

SWIN = "sparsevit::swin/mask_rcnn_swin-t_3x.py"


def milestones(cfg):
    return next(s for s in cfg.param_scheduler if s["type"] == "MultiStepLR")["milestones"]


@pytest.mark.parametrize(
    ("phase", "epochs", "steps"), [("adapt", 12, [8, 11]), ("finetune", 36, [27, 33])]
)
def test_a_dense_config_gets_the_papers_schedule(phase, epochs, steps):
    dense = load_config(SWIN)
    cfg = phase_config(with_paper_phases(dense), phase)
    assert cfg.train_cfg.max_epochs == epochs
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(1e-5)
    assert milestones(cfg) == steps
    assert dense.optim_wrapper.optimizer.lr == pytest.approx(1e-4)


def test_the_rate_falls_once_however_many_phases_follow():
    first = sparsify_config(with_paper_phases(load_config(SWIN)))
    again = with_paper_phases(first)
    assert phase_config(again, "finetune").optim_wrapper.optimizer.lr == pytest.approx(1e-5)


@pytest.mark.parametrize(
    "name", ["sparsevit/mask_rcnn_sparsevit_saa.py", "sparsevit/sparsevit_cfg1_42ms.py"]
)
def test_a_config_that_was_written_for_a_sparse_phase_is_taken_as_it_is(name):
    cfg = load_config(f"sparsevit::{name}")
    assert with_paper_phases(cfg) is cfg
    assert phase_config(cfg, "finetune").optim_wrapper.optimizer.lr == pytest.approx(1e-5)


def test_a_phase_changes_what_the_config_says_and_nothing_else():
    cfg = load_config("sparsevit::demo/mask_rcnn_swin_shapes.py")
    adapt = phase_config(cfg, "adapt")
    assert adapt.train_cfg.max_iters == cfg.phases.adapt.train_cfg.max_iters
    assert len(adapt.param_scheduler) == 1
    assert adapt.optim_wrapper.optimizer.betas == cfg.optim_wrapper.optimizer.betas
    assert phase_config(cfg, "pretrain").train_cfg.max_iters == cfg.train_cfg.max_iters
