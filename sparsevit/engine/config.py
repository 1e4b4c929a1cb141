"""Configs of mmengine's format: found by name, overridden, checked, and set to a sparsity.

A ``.py`` config is a program, as everywhere in this ecosystem: open those of people you trust.
YAML and JSON ones are data, and are read as such; see :mod:`sparsevit.engine.data_config`.
"""

from __future__ import annotations

import ast
import copy
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.config import Config
from torch import nn

from sparsevit.engine.config_check import check_config, require_model
from sparsevit.engine.config_names import (
    configs_folder,
    register_scope,
    resolve_config,
    shipped_configs,
)
from sparsevit.engine.config_text import dump_config
from sparsevit.engine.data_config import is_data, read_config, refuse_code
from sparsevit.engine.overrides import apply_overrides
from sparsevit.errors import UserError
from sparsevit.interruption import Terminated
from sparsevit.methods import METHODS, Method
from sparsevit.methods.base import Nested
from sparsevit.sparsity.handle import SparsityHandle

__all__ = [
    "apply_overrides",
    "apply_sparsity",
    "check_config",
    "configs_folder",
    "dump_config",
    "is_sparse_config",
    "load_config",
    "resolve_config",
    "set_sparsity",
    "shipped_configs",
    "sparsify_config",
]

register_scope()

SPARSITY = "sparsity"
"""Top-level key of a config: a ratio for each knob of its model."""

_RANDOM_HOOK = "RandomSparsityHook"


def load_config(name_or_path: str | Path, overrides: Sequence[str] | None = ()) -> Config:
    """Read a config, import what it asks for (``custom_imports``), and apply overrides.

    Args:
        name_or_path: see :func:`resolve_config`.
        overrides: ``key=value`` each; see :func:`apply_overrides`.

    Raises:
        UserError: there is no such config, it has an error (says where), or an override is wrong.
    """
    path = resolve_config(name_or_path)
    _refuse_syntax_errors(path)
    try:
        cfg = read_config(path)
        _import_what_is_named(cfg._cfg_dict)
    except UserError:
        raise
    except (KeyboardInterrupt, Terminated):
        raise
    except BaseException as error:  # a config is a program: it raises whatever it likes
        raise _describe(path, error) from error
    _preprocess_in_model(cfg)
    apply_overrides(cfg, overrides or ())
    if overrides and is_data(path):
        # what a YAML or JSON config must not say cannot be set in one either
        refuse_code(cfg)
    return cfg


def _preprocess_in_model(cfg: Config) -> None:
    """Move a preprocessor beside the model, where mmengine's Runner looks too, into it."""
    beside, model = cfg.get("data_preprocessor"), cfg.get("model")
    if beside is not None and isinstance(model, dict):
        model.setdefault("data_preprocessor", cfg.pop("data_preprocessor"))


# --- sparsity ------------------------------------------------------------------------------------


def sparsify_config(cfg: Config) -> Config:
    """A copy of the config whose model has parts that can be skipped, at ratio 0: the same so far.

    A config that has such parts already comes back as it is.

    Raises:
        UserError: no method finds anything in it that it could skip.
    """
    require_model(cfg)
    own = _method_of(cfg)
    if own is not None:
        return own.convert_config(cfg)
    refused: list[UserError] = []
    for method in METHODS.values():
        try:
            return method.convert_config(cfg)
        except UserError as error:
            refused.append(error)
    raise refused[0]


def is_sparse_config(cfg: Config) -> bool:
    """Whether the config's model has parts that can be skipped as it is."""
    return _method_of(cfg) is not None


def set_sparsity(
    cfg: Config, configuration: Mapping[str, float], nested: Nested | None = None
) -> Config:
    """A copy of the config whose model has these ratios, in training too (none are drawn).

    Args:
        configuration: a ratio for every knob of the model; the config's top-level ``sparsity``.
        nested: the same as :meth:`Method.nested` gives it. Where it is there, it is written in its
            place, so that the frameworks' own tools read it too.
    """
    changed = copy.deepcopy(cfg)
    changed.pop(SPARSITY, None)
    method = _method_of(changed)
    if nested is not None and method is not None:
        method.write_nested(changed, copy.deepcopy(nested))
    else:
        changed[SPARSITY] = dict(configuration)
    hooks = changed.get("custom_hooks")
    if hooks:
        changed.custom_hooks = [hook for hook in hooks if str(hook.get("type")) != _RANDOM_HOOK]
    return changed


def apply_sparsity(cfg: Config, model: nn.Module) -> None:
    """Set a model to the ``sparsity`` of its config, if it has one; other knobs stay as they are.

    Raises:
        UserError: it is no mapping of knobs to ratios, or does not suit the model.
    """
    wanted = cfg.get(SPARSITY)
    if wanted is None:
        return
    if not isinstance(wanted, dict):
        raise UserError(
            f"The config's sparsity is {wanted!r}, not a ratio for each knob.",
            'Write it as: sparsity = {"backbone.stages.0": 0.5, ...}',
        )
    handle = SparsityHandle(model)
    handle.set({**handle.get(), **wanted})


def _method_of(cfg: Config) -> type[Method] | None:
    return next((method for method in METHODS.values() if method.config_has(cfg)), None)


# --- errors in a config --------------------------------------------------------------------------


def _refuse_syntax_errors(path: Path) -> None:
    if path.suffix != ".py":
        return
    try:
        ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        code = f": {error.text.strip()}" if error.text else ""
        raise UserError(
            f"{path}, line {error.lineno}: {error.msg}{code}", "Correct that line."
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read: {error}.", "A config must be UTF-8 text."
        ) from error
    except (RecursionError, MemoryError) as error:
        raise UserError(
            f"{path} has an expression that is nested too deeply.", "Write it in several."
        ) from error


def _import_what_is_named(node: object) -> None:
    """mmengine imports what a config imports where it is first looked at."""
    if isinstance(node, dict):
        node = list(node.values())
    for value in node if isinstance(node, (list, tuple)) else ():
        _import_what_is_named(value)


def _describe(path: Path, error: BaseException) -> UserError:
    line = next(
        (
            frame.lineno
            for frame in reversed(traceback.extract_tb(error.__traceback__))
            if Path(frame.filename).suffix == ".py" and Path(frame.filename).name == path.name
        ),
        None,
    )
    where = f"{path}, line {line}" if line else str(path)
    # mmengine adds the whole sys.path to a failed import
    cause = error.__cause__ if isinstance(error.__cause__, ImportError) else error
    try:
        words = " ".join(str(cause).split())[:400]
    except Exception:
        words = "it cannot be shown"
    reason = f"{type(cause).__name__}: {words}"
    if isinstance(cause, ImportError):
        return UserError(
            f"{where} imports a module that is not installed ({reason}).",
            "Install it, or add its folder to PYTHONPATH.",
        )
    if isinstance(cause, FileNotFoundError):
        return UserError(f"{where} inherits from a config that does not exist ({reason}).", "")
    return UserError(f"{where} has an error ({reason}).", "Correct it and run the command again.")
