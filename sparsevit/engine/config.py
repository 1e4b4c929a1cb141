"""Configs of mmengine's format: found by name, overridden, checked, and set to a sparsity.

A ``.py`` config is a program, as everywhere in this ecosystem: open those of people you trust.
YAML and JSON ones are data, and are read as such; see :mod:`sparsevit.engine.data_config`.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import difflib
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict, DictAction
from mmengine.config.config import DELETE_KEY, RESERVED_KEYS
from torch import nn

from sparsevit.engine.config_names import (
    configs_folder,
    register_scope,
    resolve_config,
    shipped_configs,
)
from sparsevit.engine.config_text import dump_config
from sparsevit.engine.data_config import is_data, read_config, refuse_code
from sparsevit.errors import UserError
from sparsevit.methods import METHODS, Method
from sparsevit.methods.base import Nested
from sparsevit.sparsity.handle import SparsityHandle

__all__ = [
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
# Parts of a model that mmdet builds from its MODELS; a `type` elsewhere (an assigner, an op, an
# initialiser) is looked up in another registry.
_COMPONENTS = ("backbone", "neck", "data_preprocessor", "rpn_head", "roi_head", "detector")
_COMPONENT_ENDS = ("_head", "roi_extractor", "loss")
_COMPONENT_STARTS = ("loss_",)


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
    except UserError:
        raise
    except Exception as error:  # a config is a program: it raises whatever it likes
        raise _describe(path, error) from error
    apply_overrides(cfg, overrides or ())
    return cfg


def apply_overrides(cfg: Config, overrides: Sequence[str]) -> None:
    """Set values of a config in place, as mmdet's ``--cfg-options`` does.

    Args:
        overrides: ``model.backbone.depths=[2,2,2,2]``; keys are dotted, an index picks an item of a
            list (``train_pipeline.0.type=X``). Values are read as mmengine reads them: numbers,
            true, false, None, ``1,2`` and ``[1,2]`` lists, ``(1,2)`` tuples, else text. A quoted
            value is text, with its spaces; quoted items and dicts as in Python work too. What a
            YAML or JSON config must not say cannot be set in one either.

    Raises:
        UserError: no ``=``, or the key leads below something that has nothing below it.
    """
    for override in overrides:
        key, equals, value = override.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise UserError(
                f"--set {override} is not of the form key=value.",
                "For example: --set train_dataloader.batch_size=4",
            )
        if parts[0] in RESERVED_KEYS:
            raise UserError(f"{parts[0]!r} is a name reserved by mmengine.", "")
        _assign(cfg, parts, _parse(value))
    if overrides and is_data(cfg.filename):
        refuse_code(cfg)


def check_config(cfg: Config) -> None:
    """Refuse what would fail, less clearly, when the model is built.

    Raises:
        UserError: there is no model, or a part of it has a ``type`` that is not registered.
    """
    model = _require_model(cfg)
    from mmdet.registry import MODELS

    scope = cfg.get("default_scope") or "mmdet"
    for where, part in _parts(model, "model"):
        kind = part["type"]
        if isinstance(kind, str) and not _is_registered(MODELS, kind, scope):
            raise UserError(f"{where}.type={kind!r} is not registered.", _nearest_type(kind))


def _require_model(cfg: Config) -> ConfigDict:
    model = cfg.get("model")
    if isinstance(model, dict) and "type" in model:
        return model
    name = Path(cfg.filename).name if cfg.filename else "The config"
    raise UserError(
        f"{name} has no model: it needs model=dict(type=..., ...).",
        "Use the config of a whole detector, or inherit from one with _base_.",
    )


# --- sparsity ------------------------------------------------------------------------------------


def sparsify_config(cfg: Config) -> Config:
    """A copy of the config whose model has parts that can be skipped, at ratio 0: the same so far.

    A config that has such parts already comes back as it is.

    Raises:
        UserError: no method finds anything in it that it could skip.
    """
    _require_model(cfg)
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


# --- overrides -----------------------------------------------------------------------------------


def _parse(text: str) -> Any:
    text = text.strip()
    if text[:1] in ("'", '"', "[", "(", "{"):
        with contextlib.suppress(ValueError, SyntaxError):
            value = ast.literal_eval(text)
            if isinstance(value, (str, list, tuple, dict)):
                return value
    if "," not in text and text[:1] not in ("[", "("):
        # mmengine would drop the spaces of a path
        return DictAction._parse_int_float_bool(text)
    try:
        return DictAction._parse_iterable(text)
    except (AssertionError, RecursionError) as error:
        raise UserError(
            f"The brackets of {text} do not match.",
            "Put quotes around text that contains brackets.",
        ) from error


def _assign(cfg: Config, parts: list[str], value: Any) -> None:
    node: Any = cfg
    for depth, part in enumerate(parts[:-1], start=1):
        if isinstance(node, list):
            node = node[_index(node, parts, depth)]
        else:
            if part not in node:
                node[part] = ConfigDict()
            node = node[part]
        if not isinstance(node, (dict, list)):
            raise UserError(
                f"{'.'.join(parts)} cannot be set: {'.'.join(parts[:depth])} is {node!r}, "
                "which has no keys of its own.",
                f"Set {'.'.join(parts[:depth])} itself.",
            )
    if isinstance(node, list):
        node[_index(node, parts, len(parts))] = value
        return
    last = parts[-1]
    before = node.get(last)
    if isinstance(value, dict) and isinstance(before, dict) and not value.pop(DELETE_KEY, False):
        value = Config._merge_a_into_b(ConfigDict(value), before)
    node[last] = ConfigDict(value) if isinstance(value, dict) else value


def _index(items: list[Any], parts: list[str], depth: int) -> int:
    text = parts[depth - 1]
    if text.isdigit() and int(text) < len(items):
        return int(text)
    raise UserError(
        f"{'.'.join(parts)} cannot be set: {'.'.join(parts[: depth - 1])} is a list of "
        f"{len(items)} items, and {text!r} is not an index of it.",
        f"Use an index from 0 to {len(items) - 1}." if items else "Set the whole list.",
    )


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


def _describe(path: Path, error: Exception) -> UserError:
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
    reason = f"{type(cause).__name__}: {' '.join(str(cause).split())[:400]}"
    if isinstance(cause, ImportError):
        return UserError(
            f"{where} imports a module that is not installed ({reason}).",
            "Install it, or add its folder to PYTHONPATH.",
        )
    if isinstance(cause, FileNotFoundError):
        return UserError(f"{where} inherits from a config that does not exist ({reason}).", "")
    return UserError(f"{where} has an error ({reason}).", "Correct it and run the command again.")


def _parts(node: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The model and its components, outermost first, with their dotted names."""
    if isinstance(node, (list, tuple)):
        for n, item in enumerate(node):
            yield from _parts(item, f"{where}.{n}")
        return
    if not isinstance(node, dict):
        return
    if "type" in node:
        yield where, node
    for key, child in node.items():
        known = key in _COMPONENTS or key.endswith(_COMPONENT_ENDS)
        if known or key.startswith(_COMPONENT_STARTS):
            yield from _parts(child, f"{where}.{key}")


def _is_registered(registry: Any, kind: str, scope: str) -> bool:
    with registry.switch_scope_and_registry(scope) as scoped:
        try:
            return scoped.get(kind) is not None
        except (ImportError, KeyError, AttributeError):
            return False


def _nearest_type(kind: str) -> str:
    from mmdet.registry import MODELS

    close = difflib.get_close_matches(kind.rpartition(".")[2], MODELS.module_dict, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}List the module of a type of your own in the config's custom_imports."
