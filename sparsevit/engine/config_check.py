"""Types that a config names, looked up before anything is built from it."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mmengine.registry
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope

from sparsevit.engine.quiet import quiet_libraries
from sparsevit.errors import UserError, shortened
from sparsevit.tasks import import_library

# Parts of a model that mmdet builds from its MODELS; a `type` elsewhere (an assigner, an op, an
# initialiser) is looked up in another registry.
_COMPONENTS = (
    *("backbone", "neck", "head", "data_preprocessor", "rpn_head", "roi_head", "detector"),
)
_COMPONENT_ENDS = ("_head", "roi_extractor", "loss", "_backbone", "_neck", "view_transformer")
_COMPONENT_STARTS = ("loss_",)

# What a phase needs of a config beside its model.
MODEL_ONLY: tuple[str, ...] = ()
VALIDATION = ("val_dataloader", "val_evaluator")
TRAINING = (
    *("train_dataloader", "train_cfg", "optim_wrapper", "param_scheduler"),
    *("default_hooks", "custom_hooks", "log_processor", "visualizer", *VALIDATION),
)
_INDISPENSABLE = ("train_dataloader", "train_cfg", "optim_wrapper")

# Key -> registry of what stands there; below, what is built inside of it.
_REGISTRY = {
    "train_cfg": "LOOPS",
    "optim_wrapper": "OPTIM_WRAPPERS",
    "param_scheduler": "PARAM_SCHEDULERS",
    "val_evaluator": "METRICS",
    "custom_hooks": "HOOKS",
    "log_processor": "LOG_PROCESSORS",
    "visualizer": "VISUALIZERS",
}
_BELOW = {
    "optimizer": "OPTIMIZERS",
    "dataset": "DATASETS",
    "datasets": "DATASETS",
    "metrics": "METRICS",
    "pipeline": "TRANSFORMS",
    "transforms": "TRANSFORMS",
    "sampler": "DATA_SAMPLERS",
    "batch_sampler": "DATA_SAMPLERS",
    "vis_backends": "VISBACKENDS",
}
# What mmengine takes out of a part before it is built.
_TAKEN_OUT = {
    "HOOKS": ("priority",),
    "PARAM_SCHEDULERS": ("convert_to_iter_based",),
    "OPTIM_WRAPPERS": ("constructor", "paramwise_cfg"),
}


def check_config(cfg: Config, needed: tuple[str, ...] = MODEL_ONLY) -> None:
    """Refuse what would fail, less clearly and later, when a part of the config is built.

    Args:
        cfg: the config.
        needed: what is used of it beside the model: ``VALIDATION`` or ``TRAINING``.

    Raises:
        UserError: there is no model; something that is needed is not there; a part has a ``type``
            that is not registered, or an argument that its type does not take.
    """
    model = require_model(cfg)
    scope = cfg.get("default_scope") or "mmdet"
    # in the scope in which it will be built; some libraries are imported here for the first time
    with quiet_libraries(), DefaultScope.overwrite_default_scope(scope):
        import_library(scope)
        for where, part in _components(model, "model"):
            _check_type(where, part, "MODELS", scope)
        if needed and model.get("data_preprocessor") is None:
            raise UserError(
                "The config's model has no data_preprocessor, which makes a batch of images.",
                "Add model.data_preprocessor to the config, or inherit from one that has it.",
            )
        for name in needed:
            if name in _INDISPENSABLE and not cfg.get(name):
                raise UserError(
                    f"The config has no {name}, which training needs.",
                    f"Add {name} to the config, or inherit from one that has it.",
                )
        for name in needed:
            for where, part, registry in _typed_parts(cfg.get(name), name):
                _check_type(where, part, registry, scope)


def require_model(cfg: Config) -> ConfigDict:
    """The model of a config.

    Raises:
        UserError: it has none.
    """
    model = cfg.get("model")
    if isinstance(model, dict) and "type" in model:
        return model
    name = Path(cfg.filename).name if cfg.filename else "The config"
    raise UserError(
        f"{name} has no model: it needs model=dict(type=..., ...).",
        "Use the config of a whole model, or inherit from one with _base_.",
    )


def arguments_of(built: Any) -> tuple[str, ...] | None:
    """Names of all arguments that a class or function takes; None where it takes any."""
    try:
        parameters = inspect.signature(built).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return None
    return tuple(one.name for one in parameters if one.kind is not one.VAR_POSITIONAL)


def nearest(word: str, known: tuple[str, ...]) -> str:
    """``Did you mean ...?`` where a name comes near, else all of them."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"It takes: {', '.join(known) or 'nothing'}."


def _components(node: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The model and its components, outermost first, with their dotted names."""
    if isinstance(node, (list, tuple)):
        for n, item in enumerate(node):
            yield from _components(item, f"{where}.{n}")
        return
    if not isinstance(node, dict):
        return
    if "type" in node:
        yield where, node
    for key, child in node.items():
        known = key in _COMPONENTS or key.endswith(_COMPONENT_ENDS)
        if known or key.startswith(_COMPONENT_STARTS):
            yield from _components(child, f"{where}.{key}")


def _typed_parts(
    node: Any, where: str, registry: str | None = None
) -> Iterator[tuple[str, dict[str, Any], str]]:
    """What is built below a key of a config, with its registry, outermost first."""
    registry = registry or _REGISTRY.get(where)
    if isinstance(node, (list, tuple)):
        for n, item in enumerate(node):
            yield from _typed_parts(item, f"{where}.{n}", registry)
    elif isinstance(node, dict):
        if registry == "METRICS" and "metrics" in node:
            registry = "EVALUATOR"
        if registry is not None and "type" in node:
            yield where, node, registry
        for key, child in node.items():
            below = "HOOKS" if where == "default_hooks" else _BELOW.get(key)
            if below is not None:
                yield from _typed_parts(child, f"{where}.{key}", below)


def _check_type(where: str, part: dict[str, Any], registry: str, scope: str) -> None:
    kind = part["type"]
    if isinstance(kind, str):
        root = getattr(mmengine.registry, registry)
        with root.switch_scope_and_registry(part.get("_scope_") or scope) as scoped:
            found = _get(scoped, kind)
            if found is None:
                known = _all_names(scoped)
                raise UserError(
                    f"{where}.type={shortened(kind)!r} is not registered.", _near_type(kind, known)
                )
    elif callable(kind):
        found = kind
    else:
        raise UserError(
            f"{where}.type is {shortened(repr(kind))}, which is not a name.",
            "Give the name of a registered class.",
        )
    known_arguments = arguments_of(found)
    if known_arguments is None:
        return
    for name in part:
        if name not in ("type", "_scope_", *known_arguments, *_TAKEN_OUT.get(registry, ())):
            raise UserError(
                f"{where}.{shortened(name)}: {getattr(found, '__name__', kind)} has no argument "
                f"{shortened(name)!r}.",
                nearest(name, known_arguments),
            )


def _get(registry: Any, kind: str) -> Any:
    try:
        return registry.get(kind)
    # what is before a dot is imported: TypeError where the name begins with one
    except (ImportError, KeyError, AttributeError, ValueError, TypeError, RuntimeError):
        return None


def _all_names(registry: Any) -> list[str]:
    names: list[str] = []
    while registry is not None:
        names += registry.module_dict
        registry = registry.parent
    return names


def _near_type(kind: str, known: list[str]) -> str:
    close = difflib.get_close_matches(kind.rpartition(".")[2], known, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}List the module of a type of your own in the config's custom_imports."
