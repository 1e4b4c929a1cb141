"""How long and how fast a phase trains."""

from __future__ import annotations

import pytest
from mmengine.config import Config

from sparsevit.engine.schedule import paper_schedule, phase_config


def coco_config(**more):
    return Config(
        {
            "train_cfg": {"type": "EpochBasedTrainLoop", "max_epochs": 36, "val_interval": 1},
            "optim_wrapper": {"optimizer": {"type": "AdamW", "lr": 1e-4}},
            "param_scheduler": [{"type": "LinearLR"}],
            **more,
        }
    )


@pytest.mark.parametrize(
    ("phase", "epochs", "milestones"), [("adapt", 12, [8, 11]), ("finetune", 36, [27, 33])]
)
def test_a_config_of_pretraining_gets_the_papers_schedule(phase, epochs, milestones):
    cfg = coco_config()
    said = paper_schedule(cfg, phase)
    assert str(epochs) in said
    assert "1e-05" in said
    assert cfg.train_cfg.max_epochs == epochs
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(1e-5)
    warmup, steps = cfg.param_scheduler
    assert (warmup.type, warmup.end) == ("LinearLR", 1000)
    assert (steps.milestones, steps.end) == (milestones, epochs)


@pytest.mark.parametrize(
    ("cfg", "phase"),
    [
        (coco_config(), "pretrain"),
        (coco_config(), "search"),
        (coco_config(phases={"adapt": {}, "finetune": {"x": 1}}), "adapt"),
        (coco_config(train_cfg={"type": "IterBasedTrainLoop", "max_iters": 5}), "adapt"),
    ],
    ids=["pretrain", "search", "own-phases", "by-iteration"],
)
def test_any_other_is_left_as_it_is(cfg, phase):
    before = cfg.to_dict()
    assert paper_schedule(cfg, phase) is None
    assert cfg.to_dict() == before


def test_a_phase_changes_what_its_section_says_and_only_in_a_copy():
    cfg = coco_config(
        phases={"adapt": {"train_cfg": {"max_epochs": 2}, "param_scheduler": [{"type": "PolyLR"}]}}
    )
    changed = phase_config(cfg, "adapt")
    assert changed.train_cfg.max_epochs == 2
    assert changed.train_cfg.type == "EpochBasedTrainLoop"
    assert [s.type for s in changed.param_scheduler] == ["PolyLR"]
    assert cfg.train_cfg.max_epochs == 36
    assert phase_config(cfg, "finetune").to_dict() == cfg.to_dict()
