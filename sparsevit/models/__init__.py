"""Sparse models. Importing this room registers them in mmdet, and supplies the compiled ops that
mmdet expects where mmcv came without: ``custom_imports = dict(imports=['sparsevit.models'])`` is
all that a config of plain mmdet needs."""

from mmengine.config.utils import MODULE2PACKAGE

from sparsevit.ops import mmcv_ext

# lets `sparsevit::...` stand in `_base_` of a config
MODULE2PACKAGE.setdefault("sparsevit", "sparsevit")

mmcv_ext.install()

from sparsevit.models import bev  # noqa: E402
from sparsevit.models.sparsevit import SparseViT  # noqa: E402

__all__ = ["SparseViT", "bev"]
