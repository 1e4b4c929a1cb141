"""Configs of mmengine's format: found by name, overridden, checked, and set to a sparsity.

A ``.py`` config is a program, as everywhere in this ecosystem: open those of people you trust.
YAML and JSON ones are data, and are read as such.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import difflib
import importlib
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.config.config import DELETE_KEY, RESERVED_KEYS
from mmengine.fileio.handlers import YamlHandler
from mmengine.fileio.handlers.registry_utils import file_handlers

from sparsevit.engine.config_names import (
    configs_folder,
    register_scope,
    resolve_config,
    shipped_configs,
)
from sparsevit.engine.config_text import dump_config
from sparsevit.errors import UserError

__all__ = [
    "check_config",
    "configs_folder",
    "dense_config",
    "dump_config",
    "load_config",
    "pruning_ratios",
    "resolve_config",
    "set_pruning_ratios",
    "shipped_configs",
    "sparsify_config",
]

register_scope()

Nested = float | Sequence[float] | Sequence[Sequence[float]]

_MODULE = "sparsevit.models"
_SPARSE = ("SparseViT", "mmdet.SparseViT", "sparsevit.models.sparsevit.SparseViT")
_SWIN = ("SwinTransformer", "mmdet.SwinTransformer", "mmdet.models.backbones.swin.SwinTransformer")
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
        with _safe_yaml():
            cfg = Config.fromfile(path)
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
            value is text, with its spaces; quoted items and dicts as in Python work too.

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
            raise UserError(f"{parts[0]!r} is a name that mmengine keeps for itself.", "")
        _assign(cfg, parts, _parse(value))


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
        "Take a config of a whole detector, or inherit from one with _base_.",
    )


# --- sparsity ------------------------------------------------------------------------------------


def pruning_ratios(cfg: Config) -> Nested:
    """The ratios that the config sets, as it has them: 0.0 where it has none.

    Raises:
        UserError: the config has no sparse backbone.
    """
    return _sparse_backbone(cfg.model).get("pruning_ratios", 0.0)


def set_pruning_ratios(cfg: Config, nested: Nested) -> Config:
    """A copy of the config whose backbone has these ratios, in training too (none are drawn).

    Args:
        nested: a number, a list by stage, or by stage and block.

    Raises:
        UserError: the config has no sparse backbone.
    """
    changed = copy.deepcopy(cfg)
    ratios = copy.deepcopy(nested)
    _sparse_backbone(changed.model)["pruning_ratios"] = ratios
    hooks = changed.get("custom_hooks")
    if hooks:
        changed.custom_hooks = [hook for hook in hooks if _type_name(hook) != _RANDOM_HOOK]
    return changed


def dense_config(cfg: Config) -> Config:
    """A copy of the config at ratio 0 everywhere: the same model with nothing skipped."""
    return set_pruning_ratios(cfg, 0.0)


def sparsify_config(cfg: Config) -> Config:
    """A copy of the config whose Swin can be made sparse, at ratio 0: the same model so far.

    Replaces mmdet's ``SwinTransformer`` by ``SparseViT`` and imports what registers it. A config
    that has a sparse backbone already comes back as it is.

    Raises:
        UserError: the config has no backbone that can be made sparse.
    """
    _require_model(cfg)
    importlib.import_module(_MODULE)
    changed = copy.deepcopy(cfg)
    _import_in_config(changed, _MODULE)
    if _backbones(changed.model, _SPARSE):
        return changed
    swins = _backbones(changed.model, _SWIN)
    if not swins:
        kind = _type_name(changed.model.get("backbone") or {}) or "none"
        raise UserError(
            f"The config's backbone ({kind}) cannot be made sparse.",
            "Take a detector with mmdet's SwinTransformer as its backbone, such as "
            "mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py.",
        )
    for swin in swins:
        scoped = _type_name(swin).startswith("mmdet.") or changed.get("default_scope") != "mmdet"
        swin["type"] = "mmdet.SparseViT" if scoped else "SparseViT"
        swin.setdefault("pruning_ratios", 0.0)
    return changed


def has_sparse_backbone(cfg: Config) -> bool:
    """Whether the config's model has a backbone that can be made sparse as it is."""
    return bool(_backbones(cfg.get("model"), _SPARSE))


def _sparse_backbone(model: ConfigDict) -> ConfigDict:
    found = _backbones(model, _SPARSE)
    if len(found) == 1:
        return found[0]
    if not found:
        raise UserError(
            "The config's model has no SparseViT backbone.",
            "Set model.backbone.type to SparseViT (it takes SwinTransformer's arguments).",
        )
    raise UserError(
        f"The config's model has {len(found)} SparseViT backbones.",
        "Set model.<...>.backbone.pruning_ratios of each in the config.",
    )


def _backbones(node: Any, kinds: Sequence[str]) -> list[ConfigDict]:
    """Every dict in ``node`` whose type is one of these."""
    if isinstance(node, dict):
        own = [node] if _type_name(node) in kinds else []
        return own + [found for child in node.values() for found in _backbones(child, kinds)]
    if isinstance(node, (list, tuple)):
        return [found for child in node for found in _backbones(child, kinds)]
    return []


def _type_name(node: Any) -> str:
    kind = node.get("type", "") if isinstance(node, dict) else ""
    return f"{kind.__module__}.{kind.__qualname__}" if isinstance(kind, type) else str(kind)


def _import_in_config(cfg: Config, module: str) -> None:
    imports = dict(cfg.get("custom_imports") or {})
    named = imports.get("imports") or []
    named = [named] if isinstance(named, str) else list(named)
    if module not in named:
        named.append(module)
    imports["imports"] = named
    imports.setdefault("allow_failed_imports", False)
    cfg.custom_imports = imports


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
            f"The brackets of {text} do not match.", "Quote a text that has brackets."
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
                "which has nothing below it.",
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
        f"{'.'.join(parts)} cannot be set: {'.'.join(parts[: depth - 1])} is a list of {len(items)}"
        f", and {text!r} is none of its places.",
        f"Count from 0 to {len(items) - 1}." if items else "Set the list itself.",
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
            f"{path}, line {error.lineno}: {error.msg}{code}", "Mend that line."
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}.", "A config is UTF-8 text.") from error


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
            f"{where} imports what is not there ({reason}).", "Install it, or set PYTHONPATH to it."
        )
    if isinstance(cause, FileNotFoundError):
        return UserError(f"{where} inherits from a config that is not there ({reason}).", "")
    return UserError(f"{where} has an error ({reason}).", "Mend it and run the command again.")


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
    return f"{hint}A type of your own needs its module in the config's custom_imports."


# --- YAML as data --------------------------------------------------------------------------------


class _SafeLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML without objects, but with the tuples that mmengine writes."""


_SafeLoader.add_constructor(
    "tag:yaml.org,2002:python/tuple",
    lambda loader, node: tuple(loader.construct_sequence(node, deep=True)),
)


class _SafeYaml(YamlHandler):
    def load_from_fileobj(self, file: Any, **kwargs: Any) -> Any:
        return yaml.load(file, Loader=_SafeLoader)


@contextlib.contextmanager
def _safe_yaml() -> Iterator[None]:
    """mmengine reads YAML with a loader that runs what a file says; not while a config is read."""
    before = {suffix: file_handlers[suffix] for suffix in ("yaml", "yml")}
    try:
        file_handlers.update(dict.fromkeys(before, _SafeYaml()))
        yield
    finally:
        file_handlers.update(before)
