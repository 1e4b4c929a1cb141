"""How long and how fast a phase trains, where the config leaves that to the phase."""

from __future__ import annotations

import copy
from typing import Any

from mmengine.config import Config

# SparseViT, section 4.1, and its configs: adaptation and finetuning at a learning rate a tenth of
# Swin's 1e-4, for 12 and for 36 epochs.
_PAPER = {
    "adapt": {"epochs": 12, "milestones": [8, 11]},
    "finetune": {"epochs": 36, "milestones": [27, 33]},
}
_LEARNING_RATE_FACTOR = 0.1
_WARMUP_ITERATIONS = 1000


def phase_config(cfg: Config, phase: str) -> Config:
    """The config of a phase: a copy with what stands under ``phases.<phase>`` merged in.

    A config for several phases keeps in ``phases = dict(adapt=dict(...), finetune=dict(...))`` what
    each changes, such as the number of iterations.
    """
    changes = (cfg.get("phases") or {}).get(phase)
    merged = copy.deepcopy(cfg)
    if changes:
        merged.merge_from_dict(_as_plain(changes))
    return merged


def paper_schedule(cfg: Config, phase: str) -> str | None:
    """Give a config of pretraining the paper's schedule for ``adapt`` or ``finetune``, in place.

    Returns:
        A sentence on what was set; None where the config says itself what a phase changes, or
        counts iterations, for which the paper has no figure.
    """
    loop = cfg.get("train_cfg") or {}
    if phase not in _PAPER or cfg.get("phases") or loop.get("type") == "IterBasedTrainLoop":
        return None
    epochs, milestones = _PAPER[phase]["epochs"], _PAPER[phase]["milestones"]
    cfg.train_cfg.max_epochs = epochs
    cfg.param_scheduler = [
        {
            "type": "LinearLR",
            "start_factor": 0.001,
            "by_epoch": False,
            "begin": 0,
            "end": _WARMUP_ITERATIONS,
        },
        {
            "type": "MultiStepLR",
            "begin": 0,
            "end": epochs,
            "by_epoch": True,
            "milestones": milestones,
            "gamma": 0.1,
        },
    ]
    optimizer = cfg.optim_wrapper.optimizer
    optimizer.lr = optimizer.lr * _LEARNING_RATE_FACTOR
    return f"the paper's schedule: {epochs} epochs at learning rate {optimizer.lr:g}"


def _as_plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _as_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_as_plain(v) for v in value)
    return value
