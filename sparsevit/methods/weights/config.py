"""Finds in a config the transformer that is trained sparse."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sparsevit.errors import UserError
from sparsevit.methods.weights.recipe import HEADS, NEURONS

if TYPE_CHECKING:
    from mmengine.config import Config

MODULE = "sparsevit.models.svite"
_SPARSE = ("SViTE", "DistilledSViTE")


def has_weights(cfg: Config) -> bool:
    """Whether the config's backbone is one that is trained sparse."""
    backbone = (cfg.get("model") or {}).get("backbone") or {}
    kind = backbone.get("type", "") if isinstance(backbone, dict) else ""
    if isinstance(kind, type):
        return kind.__module__ == MODULE
    scope, _, name = str(kind).rpartition(".")
    return name in _SPARSE and scope in ("", "mmpretrain", MODULE)


def with_weights(cfg: Config) -> Config:
    """A copy of a config whose backbone is trained sparse, with what registers it imported.

    Raises:
        UserError: its backbone is another one. How sparse a training is has to be said before it
            begins, so none is made of a dense config.
    """
    if not has_weights(cfg):
        raise UserError(
            "The config's backbone is not one that is trained sparse.",
            "Set type of mmpretrain's VisionTransformer to SViTE, and svite=dict(density=0.5).",
        )
    importlib.import_module(MODULE)
    return copy.deepcopy(cfg)


def with_widths(cfg: Config, widths: Mapping[str, Sequence[int]]) -> Config:
    """A copy of a config for the model that is left when heads and neurons are taken out.

    Args:
        widths: ``heads`` and ``neurons``: how many each block has.
    """
    changed = copy.deepcopy(cfg)
    backbone = changed.model.backbone
    backbone.widths = {name: list(counts) for name, counts in widths.items()}
    taken = (HEADS, NEURONS)
    backbone.svite = {k: v for k, v in (backbone.get("svite") or {}).items() if k not in taken}
    ratios = changed.get("sparsity") or {}
    left = {name: r for name, r in ratios.items() if name.rpartition(".")[2] not in taken}
    changed.pop("sparsity", None)
    if left:
        changed.sparsity = left
    return changed
