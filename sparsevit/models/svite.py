"""SViTE: mmpretrain's vision transformers, trained sparse (Chen et al., arXiv 2106.04533).

They are the library's own classes with the library's own parameters; what is added is which of
them a training keeps alive: see :mod:`sparsevit.methods.weights`. A config imports this module:
``custom_imports = dict(imports=["sparsevit.models.svite"])``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.model import ExponentialMovingAverage
from mmengine.registry import MODELS as ROOT
from torch import Tensor

from sparsevit.methods.weights import Weights
from sparsevit.methods.weights.shrink import narrow
from sparsevit.ops.mmpretrain_import import import_mmpretrain

import_mmpretrain()

from mmpretrain.models.backbones import (  # noqa: E402
    DistilledVisionTransformer,
    VisionTransformer,
)
from mmpretrain.registry import MODELS  # noqa: E402


@MODELS.register_module()
class SViTE(VisionTransformer):
    """``VisionTransformer`` whose training is sparse.

    Args:
        svite: options of a :class:`~sparsevit.methods.weights.recipe.Recipe`; none keeps all.
        widths: ``heads`` and ``neurons``, how many each block has, of a model that
            ``sparsevit convert`` made smaller.
        **of_transformer: of ``VisionTransformer``.

    Raises:
        UserError: an option is wrong or does not suit the transformer.
    """

    def __init__(
        self,
        *,
        svite: Mapping[str, Any] | None = None,
        widths: Mapping[str, Sequence[int]] | None = None,
        **of_transformer: Any,
    ) -> None:
        super().__init__(**of_transformer)
        if widths is not None:
            narrow(self, **widths)
        Weights.convert(self, **(svite or {}))


@MODELS.register_module()
class DistilledSViTE(DistilledVisionTransformer):
    """``DistilledVisionTransformer`` whose training is sparse; arguments as of :class:`SViTE`."""

    def __init__(
        self,
        *,
        svite: Mapping[str, Any] | None = None,
        widths: Mapping[str, Sequence[int]] | None = None,
        **of_transformer: Any,
    ) -> None:
        super().__init__(**of_transformer)
        if widths is not None:
            narrow(self, **widths)
        Weights.convert(self, **(svite or {}))


@ROOT.register_module()
class SparseEMA(ExponentialMovingAverage):
    """A moving average that is as sparse as its model: what is zero there is zero here.

    For mmengine's ``EMAHook``: ``dict(type="EMAHook", ema_type="SparseEMA", momentum=4e-5)``. An
    average over several masks would be alive wherever one of them was.
    """

    def avg_func(self, averaged_param: Tensor, source_param: Tensor, steps: int) -> None:
        super().avg_func(averaged_param, source_param, steps)
        averaged_param.masked_fill_(source_param == 0, 0)
