"""Values of a config given as ``key=value``, and the plain values of a config checked."""

from __future__ import annotations

import ast
import contextlib
import difflib
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mmengine.config import Config, ConfigDict, DictAction
from mmengine.config.config import BASE_KEY, DELETE_KEY, RESERVED_KEYS

from sparsevit.engine.data_config import refuse_code_in
from sparsevit.engine.plain_values import check_plain_values
from sparsevit.errors import UserError, shortened

_OVERRIDES = "_overrides"
_LONGEST_KEY = 500
_LONGEST_VALUE = 20_000
_DEEPEST = 40
# What mmengine's Runner and the phases read at the top of a config.
_TOP = (
    *("model", "work_dir", "train_dataloader", "val_dataloader", "test_dataloader"),
    *("train_cfg", "val_cfg", "test_cfg", "auto_scale_lr", "optim_wrapper", "param_scheduler"),
    *("val_evaluator", "test_evaluator", "default_hooks", "custom_hooks", "data_preprocessor"),
    *("load_from", "resume", "launcher", "env_cfg", "log_processor", "log_level", "visualizer"),
    *("default_scope", "randomness", "experiment_name", "custom_imports", "model_wrapper_cfg"),
    *("runner_type", "phases", "sparsity", "embedded_dataset", "data_root"),
)


def apply_overrides(cfg: Config, overrides: Sequence[str]) -> None:
    """Set values of a config in place, as mmdet's ``--cfg-options`` does, and check the plain ones.

    Args:
        overrides: ``model.backbone.depths=[2,2,2,2]``; keys are dotted, an index picks an item of a
            list (``train_pipeline.0.type=X``). Values are read as mmengine reads them: numbers,
            true, false, None, ``1,2`` and ``[1,2]`` lists, ``(1,2)`` tuples, else text. A quoted
            value is text, with its spaces; quoted items and dicts as in Python work too.

    Raises:
        UserError: no ``=``, the key leads below something that has nothing below it, nothing reads
            a key that is nearly another one, a value is none that its key takes, or leads to
            code.
    """
    for override in overrides:
        key, equals, value = override.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise UserError(
                f"--set {shortened(override)} is not of the form key=value.",
                "For example: --set train_dataloader.batch_size=4",
            )
        _check_key(parts)
        parsed = _parse(value)
        refuse_code_in(".".join(parts), parsed, cfg)
        _assign(cfg, parts, parsed)
    known = given_overrides(cfg)
    cfg.__dict__[_OVERRIDES] = (*known, *(one for one in overrides if one not in known))
    check_plain_values(cfg, {one.partition("=")[0].strip() for one in given_overrides(cfg)})


def given_overrides(cfg: Config) -> tuple[str, ...]:
    """Every ``key=value`` that was applied to a config, or to the one that it is a copy of."""
    given: tuple[str, ...] = cfg.__dict__.get(_OVERRIDES, ())
    return given


# --- keys ----------------------------------------------------------------------------------------


def _check_key(parts: list[str]) -> None:
    key = ".".join(parts)
    reserved = parts[0] if parts[0] in RESERVED_KEYS else None
    reserved = next((part for part in parts if part in (BASE_KEY, DELETE_KEY)), reserved)
    if reserved is not None:
        raise UserError(
            f"{reserved!r} is a name reserved by mmengine.",
            f"To replace a whole dict: --set \"key={{'{DELETE_KEY}': True, ...}}\"",
        )
    if parts[0] == "custom_imports":
        raise UserError(
            f"--set {shortened(key)}: a config imports its modules before anything is set in it.",
            "Write custom_imports into the config.",
        )
    if len(key) > _LONGEST_KEY or len(parts) > _DEEPEST:
        raise UserError(
            f"--set {shortened(key)}: a key of {len(key)} characters and {len(parts)} parts.",
            f"A key has at most {_LONGEST_KEY} characters and {_DEEPEST} parts.",
        )
    # a config is written as Python text, in which a name at the top is code
    if not (parts[0].isidentifier() and parts[0].isascii()) or not key.isprintable():
        raise UserError(
            f"--set {shortened(key)!r}: {shortened(parts[0])!r} cannot be the name of a value.",
            "For example: --set train_dataloader.batch_size=4",
        )


def _assign(cfg: Config, parts: list[str], value: Any) -> None:
    node: Any = cfg
    for depth, part in enumerate(parts[:-1], start=1):
        if isinstance(node, list):
            node = node[_index(node, parts, depth)]
        else:
            if part not in node:
                _refuse_misspelled(cfg, node, parts[:depth])
                node[part] = ConfigDict()
            node = node[part]
        if not isinstance(node, (dict, list)):
            raise UserError(
                f"{'.'.join(parts)} cannot be set: {'.'.join(parts[:depth])} is "
                f"{shortened(repr(node))}, which has no keys of its own.",
                f"Set {'.'.join(parts[:depth])} itself.",
            )
    if isinstance(node, list):
        index = _index(node, parts, len(parts))
        node[index] = ConfigDict(value) if isinstance(value, dict) else value
        return
    last = parts[-1]
    if last not in node:
        _refuse_misspelled(cfg, node, parts)
    before = node.get(last)
    if isinstance(value, dict) and isinstance(before, dict) and not value.pop(DELETE_KEY, False):
        try:
            value = Config._merge_a_into_b(ConfigDict(value), before)
        except (TypeError, KeyError) as error:
            raise UserError(
                f"{'.'.join(parts)} cannot be set: {shortened(str(error), 300)}",
                f"Set the inner values one by one, or put '{DELETE_KEY}': True into the dict.",
            ) from error
    node[last] = ConfigDict(value) if isinstance(value, dict) else value


def _refuse_misspelled(cfg: Config, node: Any, parts: list[str]) -> None:
    """Refuse a new key that is nearly one that is there: nothing would read it.

    What has a ``type`` is checked against what that type takes.
    """
    known = [*node, *(_TOP if node is cfg else ())]
    last = parts[-1]
    if "type" in node or last in known:
        return
    near = difflib.get_close_matches(last, map(str, known), n=1, cutoff=0.8)
    if near and last not in _keys_of(cfg):
        where = ".".join(parts[:-1]) or "The config"
        raise UserError(
            f"{where} has no {last!r}, and nothing reads it.",
            f"Did you mean {'.'.join([*parts[:-1], near[0]])}?",
        )


def _keys_of(node: Any) -> Iterator[Any]:
    """Every key that is somewhere in a config."""
    if isinstance(node, (dict, Config)):
        for key, value in node.items():
            yield key
            yield from _keys_of(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from _keys_of(value)


def _index(items: Sequence[Any], parts: list[str], depth: int) -> int:
    text = parts[depth - 1]
    if text.isascii() and text.isdigit() and len(text) < 10 and int(text) < len(items):
        return int(text)
    raise UserError(
        f"{shortened('.'.join(parts))} cannot be set: {'.'.join(parts[: depth - 1])} is a list of "
        f"{len(items)} items, and {shortened(text)!r} is not an index of it.",
        f"Use an index from 0 to {len(items) - 1}." if items else "Set the whole list.",
    )


# --- values --------------------------------------------------------------------------------------


def _parse(text: str) -> Any:
    """The value that a text stands for; read as data, never run."""
    text = text.strip()
    if len(text) > _LONGEST_VALUE or _depth(text) > _DEEPEST:
        raise UserError(
            f"--set with a value of {len(text)} characters and {_depth(text)} nested brackets: "
            f"{shortened(text)}",
            f"A value has at most {_LONGEST_VALUE} characters and {_DEEPEST} nested brackets. "
            "Write larger ones into a config.",
        )
    value = _literal(text)
    _check_value(value, text)
    return value


def _literal(text: str) -> Any:
    if text[:1] in ("'", '"', "[", "(", "{"):
        # TypeError: a list among a set's items, or as a key
        with contextlib.suppress(ValueError, SyntaxError, TypeError):
            value = ast.literal_eval(text)
            if isinstance(value, (str, list, tuple, dict)):
                return value
    if not text.isascii():
        # int() reads the digits of every script
        return text
    if "," not in text and text[:1] not in ("[", "("):
        # mmengine would drop the spaces of a path
        return DictAction._parse_int_float_bool(text)
    try:
        return DictAction._parse_iterable(text)
    except (AssertionError, RecursionError) as error:
        raise UserError(
            f"The brackets of {shortened(text)} do not match.",
            "Put quotes around text that contains brackets.",
        ) from error


def _check_value(value: Any, text: str) -> None:
    """Refuse what no config holds: numbers beyond 64 bits, keys that are no text, sets."""
    overflowed = isinstance(value, float) and math.isinf(value) and text.strip("+-")[:1].isdigit()
    if overflowed or (isinstance(value, int) and not -(1 << 63) <= value < 1 << 63):
        raise UserError(
            f"--set with the number {shortened(text)}, which is too large.",
            "Whole numbers have at most 64 bits; write inf for infinity.",
        )
    children: Iterable[Any] = ()
    if isinstance(value, dict):
        wrong = next((key for key in value if not isinstance(key, str)), None)
        if wrong is not None:
            raise UserError(
                f"--set with a dict that has the key {shortened(repr(wrong))}.",
                "Keys of a config are text: put quotes around them.",
            )
        children = value.values()
    elif isinstance(value, (list, tuple)):
        children = value
    elif not isinstance(value, (str, int, float, bool, type(None))):
        raise UserError(
            f"--set with a value of the type {type(value).__name__}: {shortened(text)}",
            "A value is a number, text, true, false, None, a list, a tuple or a dict of these.",
        )
    for child in children:
        _check_value(child, "" if isinstance(child, float) else str(child)[:100])


def _depth(text: str) -> int:
    deepest = depth = 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        deepest = max(deepest, depth)
    return deepest
