"""How long and how fast a phase trains, where the config leaves that to the phase."""

from __future__ import annotations

import copy
from typing import Any

from mmengine.config import Config

from sparsevit.engine.config import is_sparse_config

# SparseViT, section 4.1, and its configs: adaptation and finetuning at a learning rate a tenth of
# Swin's 1e-4, for 12 and for 36 epochs.
_PAPER: dict[str, dict[str, Any]] = {
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


def with_paper_phases(cfg: Config) -> Config:
    """A dense model's config with ``phases``: what the paper changes to adapt and to finetune.

    A config that says itself what phases change, that has a sparse backbone (and so was written for
    one of these phases), or that counts iterations, for which the paper has no figure, comes back
    as it is.
    """
    loop = cfg.get("train_cfg") or {}
    if "phases" in cfg or is_sparse_config(cfg) or "max_epochs" not in loop:
        return cfg
    changed = copy.deepcopy(cfg)
    rate = cfg.optim_wrapper.optimizer.lr * _LEARNING_RATE_FACTOR
    changed.phases = {phase: _paper_changes(phase, rate) for phase in _PAPER}
    return changed


def _paper_changes(phase: str, learning_rate: float) -> dict[str, Any]:
    epochs = _PAPER[phase]["epochs"]
    return {
        "train_cfg": {"max_epochs": epochs},
        "optim_wrapper": {"optimizer": {"lr": learning_rate}},
        "param_scheduler": [
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
                "milestones": _PAPER[phase]["milestones"],
                "gamma": 0.1,
            },
        ],
    }


def _as_plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _as_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_as_plain(v) for v in value)
    return value
