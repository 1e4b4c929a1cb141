"""Windows as a method: what it converts, compiles to, exports to and looks like."""

from __future__ import annotations

from torch import nn

from sparsevit.methods.base import Method


class Windows(Method):
    """Each block works on its most active windows (SparseViT, arXiv 2303.17605)."""

    name = "windows"

    @classmethod
    def compiled(cls, part: nn.Module, frozen: bool) -> nn.Module | None:
        from sparsevit.models import SparseViT
        from sparsevit.models.forms import compiled

        return compiled(part, frozen=frozen) if isinstance(part, SparseViT) else None

    @classmethod
    def exported(cls, part: nn.Module) -> nn.Module:
        from sparsevit.models import SparseViT
        from sparsevit.models.forms import exported

        return exported(part) if isinstance(part, SparseViT) else part
