"""Sparsifiner for mmpretrain's classifiers: importing this module registers it there.

``custom_imports = dict(imports=["sparsevit.models.sparsifiner_backbones"])`` in a config.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor

from sparsevit.methods.attention import Connections
from sparsevit.models import sparsifiner
from sparsevit.models.sparsifiner import SparsifinerConfig
from sparsevit.ops.mmpretrain_import import import_mmpretrain

import_mmpretrain()

from mmpretrain.models.backbones import VisionTransformer  # noqa: E402
from mmpretrain.models.heads import ClsHead  # noqa: E402
from mmpretrain.registry import MODELS  # noqa: E402


@MODELS.register_module()
class SparsifinerDeiT(VisionTransformer):
    """``VisionTransformer`` whose attention connects what its predictors choose.

    Args:
        sparsifiner: options of :meth:`sparsevit.methods.attention.Connections.convert`.
        **of_transformer: of ``VisionTransformer``; its images have one size.

    Raises:
        UserError: an option is wrong or does not suit the transformer.
    """

    def __init__(
        self, *, sparsifiner: Mapping[str, Any] | None = None, **of_transformer: Any
    ) -> None:
        super().__init__(**of_transformer)
        Connections.convert(self, **(sparsifiner or {}))


@MODELS.register_module()
class Sparsifiner(sparsifiner.Sparsifiner, BaseModule):
    """A whole Sparsifiner, DeiT or LV-ViT, as a backbone that gives logits: its head is a
    ``LogitsHead``.

    Args:
        sparsifiner: options of :class:`sparsevit.methods.attention.SparseConnections`.
        init_cfg: of mmengine.
        **config: of :class:`~sparsevit.models.sparsifiner.SparsifinerConfig`.

    Raises:
        UserError: a value is wrong, or values do not go together.
    """

    def __init__(
        self,
        *,
        sparsifiner: Mapping[str, Any] | None = None,
        init_cfg: Any = None,
        **config: Any,
    ) -> None:
        super().__init__(SparsifinerConfig(**config), **(sparsifiner or {}))
        self.init_cfg = init_cfg

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Logits, (B, classes), as the only map of a backbone."""
        return (super().forward(images),)


@MODELS.register_module()
class LogitsHead(ClsHead):
    """The head of a backbone that gives logits: losses and predictions, and no weights."""

    def __init__(self, num_classes: int, **of_head: Any) -> None:
        super().__init__(**of_head)
        self.num_classes = num_classes
