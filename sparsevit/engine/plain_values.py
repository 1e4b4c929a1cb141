"""What the plain values of a config may be: those of mmengine's keys, which it reads late or never.

A wrong one would fail in the middle of something else, be taken for another value, or end the
machine: 100,000 workers are started one after the other.
"""

from __future__ import annotations

import fnmatch
import math
import multiprocessing
import os
from collections.abc import Callable, Collection, Iterator
from typing import Any

from mmengine.config import Config

from sparsevit.engine.data_config import values_of
from sparsevit.errors import UserError, shortened
from sparsevit.limits import LONGEST_TRAINING
from sparsevit.secrets import masked


def most_workers() -> int:
    """More processes that load data than this are a mistake on this machine."""
    return max(64, 8 * (os.cpu_count() or 1))


# --- kinds of values -----------------------------------------------------------------------------

_Test = Callable[[Any], bool]
_Rule = tuple[str, _Test]


def _whole(least: int, most: int | None = None, none: bool = False) -> _Rule:
    said = f"a whole number from {least}" + (f" to {most}" if most is not None else "")
    return _or_none(
        said if most is not None else f"a whole number, {least} or more",
        lambda v: (
            (isinstance(v, int) or (isinstance(v, float) and v.is_integer()))
            and not isinstance(v, bool)
            and least <= v <= (most if most is not None else 1 << 31)
        ),
        none,
    )


def _or_none(said: str, test: _Test, none: bool) -> _Rule:
    return (f"{said}, or None", lambda v: v is None or test(v)) if none else (said, test)


def _one_of(*values: Any) -> _Rule:
    return (f"one of {', '.join(map(str, values))}", lambda v: v in values)


def _is(said: str, *types: type, none: bool = False) -> _Rule:
    return _or_none(said, lambda v: isinstance(v, types), none)


def _dicts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(one, dict) for one in value)


_DICT = _is("a dict", dict)
_DICT_OR_NONE = _is("a dict", dict, none=True)
_DICTS: _Rule = ("a list of dicts", _dicts)
_DICTS_OR_NONE = _or_none("a list of dicts", _dicts, True)
_SOME_DICTS = _or_none(
    "a dict or a list of dicts", lambda v: isinstance(v, dict) or _dicts(v), True
)
_BOOL = _is("true or false", bool)
_TEXT_OR_NONE = _is("text", str, none=True)
_RATE: _Rule = (
    "a number, 0 or more",
    lambda v: (
        isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) and v >= 0
    ),
)

_SHARE: _Rule = ("a number from 0 to 1", lambda v: _RATE[1](v) and v <= 1)

_RULES: dict[str, _Rule] = {
    "model": _DICT,
    "model.*backbone.*drop*_rate": _SHARE,
    "*_dataloader": _DICT_OR_NONE,
    "*_dataloader.batch_size": _whole(1),
    "*_dataloader.num_workers": _whole(0, most_workers()),
    "*_dataloader.persistent_workers": _BOOL,
    "*_dataloader.pin_memory": _BOOL,
    "*_dataloader.drop_last": _BOOL,
    "*_dataloader.prefetch_factor": _whole(1, 1000, none=True),
    "*_dataloader.timeout": _RATE,
    "*_dataloader.dataset": _DICT,
    "*_dataloader.sampler": _DICT_OR_NONE,
    "*_dataloader.batch_sampler": _DICT_OR_NONE,
    "*_dataloader.dataset.pipeline": _DICTS,
    "*_dataloader.dataset.metainfo": _DICT_OR_NONE,
    "*_dataloader.dataset.filter_cfg": _DICT_OR_NONE,
    "*_dataloader.dataset.data_prefix": _is("a dict or text", dict, str, none=True),
    "*_dataloader.dataset.data_root": _TEXT_OR_NONE,
    "*_dataloader.dataset.ann_file": _is("text", str),
    "train_cfg": _DICT_OR_NONE,
    "val_cfg": _DICT_OR_NONE,
    "test_cfg": _DICT_OR_NONE,
    "train_cfg.by_epoch": _BOOL,
    "train_cfg.max_iters": _whole(1, LONGEST_TRAINING),
    "train_cfg.max_epochs": _whole(1, LONGEST_TRAINING),
    "train_cfg.val_interval": _whole(1),
    "train_cfg.val_begin": _whole(0),
    "val_evaluator": _SOME_DICTS,
    "test_evaluator": _SOME_DICTS,
    "optim_wrapper": _DICT_OR_NONE,
    "optim_wrapper.optimizer": _DICT,
    "optim_wrapper.optimizer.lr": _RATE,
    "optim_wrapper.optimizer.weight_decay": _RATE,
    "optim_wrapper.clip_grad": _DICT_OR_NONE,
    "optim_wrapper.paramwise_cfg": _DICT_OR_NONE,
    "optim_wrapper.accumulative_counts": _whole(1),
    "param_scheduler": _SOME_DICTS,
    "param_scheduler.begin": _whole(0),
    "param_scheduler.[0-9]*.begin": _whole(0),
    "default_hooks": _DICT_OR_NONE,
    "default_hooks.*": _DICT_OR_NONE,
    "custom_hooks": _DICTS_OR_NONE,
    "custom_imports": _DICT_OR_NONE,
    "visualizer": _DICT_OR_NONE,
    "visualizer.vis_backends": _SOME_DICTS,
    "log_processor": _DICT_OR_NONE,
    "log_processor.window_size": _whole(1),
    "log_processor.by_epoch": _BOOL,
    "log_level": _one_of(
        *("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "WARN", "FATAL", "NOTSET"),
        *range(0, 51, 10),
    ),
    "default_scope": _TEXT_OR_NONE,
    "data_root": _TEXT_OR_NONE,
    "env_cfg": _DICT,
    "env_cfg.cudnn_benchmark": _BOOL,
    "env_cfg.mp_cfg": _DICT,
    "env_cfg.mp_cfg.mp_start_method": _one_of(None, *multiprocessing.get_all_start_methods()),
    "env_cfg.mp_cfg.opencv_num_threads": _whole(0, 1024),
    "randomness": _DICT,
    "randomness.seed": _whole(0, (1 << 32) - 1, none=True),
    "randomness.deterministic": _BOOL,
    "randomness.diff_rank_seed": _BOOL,
    "auto_scale_lr": _DICT_OR_NONE,
    "auto_scale_lr.enable": _BOOL,
    "auto_scale_lr.base_batch_size": _whole(1),
    "model_wrapper_cfg": _DICT,
    "embedded_dataset": _DICT_OR_NONE,
    "phases": _DICT_OR_NONE,
    "phases.*": _DICT_OR_NONE,
}


def check_plain_values(cfg: Config, given: Collection[str] = ()) -> None:
    """Refuse a plain value of a config that is none of those its key takes.

    Args:
        cfg: the config.
        given: keys that were set with ``--set``, for the message.

    Raises:
        UserError: with the key, the value and what it may be; an address has a password in it.
    """
    for pattern, (said, test) in _RULES.items():
        for key, value in _found(cfg, pattern.split("."), ""):
            if not test(value):
                named = f"--set {key}" if key in given else f"{key} of the config"
                raise UserError(
                    f"{named} is {shortened(repr(value))}; it must be {said}.", "Correct the value."
                )
    for key, last, value in values_of(cfg._cfg_dict):
        if last == "type" and isinstance(value, (dict, int, float)):
            raise UserError(
                f"{key} of the config is {shortened(repr(value))}, which is not a name.",
                "Give the name of a registered class.",
            )
        if isinstance(value, str) and "://" in value and masked(value) != value:
            # every run keeps its config, in files that people share
            raise UserError(
                f"{key} of the config is an address with a password: {masked(value)}",
                "Download the file, and give its path.",
            )


def _found(node: Any, parts: list[str], where: str) -> Iterator[tuple[str, Any]]:
    """The values of a config at a dotted pattern, with their keys; lists by their numbers."""
    if isinstance(node, (list, tuple)):
        items: Any = [(str(number), one) for number, one in enumerate(node)]
    elif isinstance(node, (dict, Config)):
        items = (
            node.items()
            if "*" in parts[0]
            else [(parts[0], node[parts[0]])]
            if (parts[0] in node)
            else []
        )
    else:
        return
    for key, value in items:
        if isinstance(key, str) and fnmatch.fnmatchcase(key, parts[0]):
            if len(parts) == 1:
                yield where + key, value
            else:
                yield from _found(value, parts[1:], f"{where}{key}.")
