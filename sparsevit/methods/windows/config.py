"""Turns a config with a Swin backbone into a sparse one, and finds where it has its ratios."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sparsevit.errors import UserError
from sparsevit.methods.base import Nested

if TYPE_CHECKING:
    from mmengine.config import Config, ConfigDict

_MODULE = "sparsevit.models"
_CLASSIFIERS = "mmpretrain"
_SPARSE = (
    "SparseViT",
    *("mmdet.SparseViT", "sparsevit.models.sparsevit.SparseViT"),
    *(f"{_CLASSIFIERS}.SparseViT", "sparsevit.models.classification.SparseViT"),
)
_SWIN = (
    "SwinTransformer",
    *("mmdet.SwinTransformer", "mmdet.models.backbones.swin.SwinTransformer"),
    *("mmseg.SwinTransformer", "mmseg.models.backbones.swin.SwinTransformer"),
    f"{_CLASSIFIERS}.SwinTransformer",
    f"{_CLASSIFIERS}.models.backbones.swin_transformer.SwinTransformer",
)


def has_windows(cfg: Config) -> bool:
    """Whether the config's model has a backbone that can be made sparse as it is."""
    return bool(_backbones(cfg.get("model"), _SPARSE))


def sparsify_swin(cfg: Config) -> Config:
    """A copy of a config with ``SparseViT`` in place of its ``SwinTransformer``, at ratio 0,
    and the import that registers it. One that has a sparse backbone comes back as it is.

    Raises:
        UserError: the config has no backbone that can be made sparse.
    """
    changed = copy.deepcopy(cfg)
    for module in _modules(changed):
        importlib.import_module(module)
        _import_in_config(changed, module)
    if _backbones(changed.model, _SPARSE):
        return changed
    swins = _backbones(changed.model, _SWIN)
    if not swins:
        kind = _type_name(changed.model.get("backbone") or {}) or "none"
        raise UserError(
            f"The config's backbone ({kind}) cannot be made sparse.",
            "Use a config with the SwinTransformer of mmdet, mmseg or mmpretrain as its backbone, "
            "such as mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py.",
        )
    for swin in swins:
        swin["type"] = _sparse_type(swin, changed.get("default_scope"))
        swin.setdefault("pruning_ratios", 0.0)
    return changed


def _sparse_type(swin: Any, scope: str | None) -> str:
    """What takes the place of a ``SwinTransformer``; each library has its own arguments."""
    said = _type_name(swin).partition(".")[0]
    if _CLASSIFIERS in (said, scope) and said not in ("mmdet", "mmseg"):
        return "SparseViT" if scope == _CLASSIFIERS else f"{_CLASSIFIERS}.SparseViT"
    return "SparseViT" if scope == "mmdet" and said != "mmdet" else "mmdet.SparseViT"


def _modules(cfg: Config) -> tuple[str, ...]:
    """What registers the sparse backbones of a config."""
    kinds = [_type_name(one) for one in _backbones(cfg.model, (*_SWIN, *_SPARSE))]
    theirs = cfg.get("default_scope") == _CLASSIFIERS or any(
        kind.startswith((f"{_CLASSIFIERS}.", f"{_MODULE}.classification.")) for kind in kinds
    )
    return (_MODULE, f"{_MODULE}.classification") if theirs else (_MODULE,)


def write_pruning_ratios(cfg: Config, nested: Nested) -> None:
    """Give the config's one sparse backbone these ratios, in place.

    Raises:
        UserError: the config has no sparse backbone, or several.
    """
    found = _backbones(cfg.model, _SPARSE)
    if not found:
        raise UserError(
            "The config's model has no SparseViT backbone.",
            "Set model.backbone.type to SparseViT (it takes SwinTransformer's arguments).",
        )
    if len(found) > 1:
        raise UserError(
            f"The config's model has {len(found)} SparseViT backbones.",
            "Set model.<...>.backbone.pruning_ratios of each in the config.",
        )
    found[0]["pruning_ratios"] = nested


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
