"""The three questions a sparse model answers, asked of a whole model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import nn

from sparsevit.errors import UserError
from sparsevit.sparsity.configuration import Configuration
from sparsevit.sparsity.space import Space

if TYPE_CHECKING:
    from sparsevit.methods.base import Method

ATTACHED = "_sparsity"
"""Name of the attribute by which a module of another library carries its :class:`SparseModule`."""


@runtime_checkable
class SparseModule(Protocol):
    """What a module with skippable parts implements, with names local to it.

    Attributes:
        sparsity_method: the kind of sparsity that it belongs to.
    """

    sparsity_method: type[Method]

    def sparsity_space(self) -> Space:
        """What are your knobs?"""

    def get_sparsity(self) -> Configuration:
        """What are they set to now?"""

    def set_sparsity(self, configuration: Configuration) -> None:
        """Set them to this."""


class SparsityHandle:
    """All knobs of a model, under the names the model gives its modules.

    Whoever adapts, searches, times or exports a model works on this, and so knows nothing of
    windows, heads or weights.

    Args:
        model: any module; the :class:`SparseModule` s inside it are found. A wrapper such as DDP
            is looked through.
        required: refuse a model in which nothing can be skipped; else it has no knobs.

    Raises:
        UserError: nothing in the model can be skipped, and that is required.
    """

    def __init__(self, model: nn.Module, required: bool = True) -> None:
        model = getattr(model, "module", model)
        self._parts = sparse_parts(model)
        if required and not self._parts:
            raise UserError(
                f"{type(model).__name__} has no part that can be skipped.",
                "Call sparsify(model) first; in a config, use the backbone SparseViT in place of "
                "SwinTransformer.",
            )
        self.space = sum(
            (part.sparsity_space().prefixed(prefix) for prefix, part in self._parts.items()),
            start=Space([]),
        )

    def get(self) -> Configuration:
        """The ratio of every knob as set now."""
        values = {
            _join(prefix, name): ratio
            for prefix, part in self._parts.items()
            for name, ratio in part.get_sparsity().items()
        }
        return self.space.validate(values)

    def set(self, configuration: Mapping[str, float]) -> Configuration:
        """Set every knob; returns the validated configuration.

        Raises:
            ConfigurationError: it does not fit the model; nothing is set.
        """
        valid = self.space.validate(configuration)
        for prefix, part in self._parts.items():
            local = part.sparsity_space()
            part.set_sparsity(local.validate({n: valid[_join(prefix, n)] for n in local.names}))
        return valid


def sparse_parts(model: nn.Module) -> dict[str, SparseModule]:
    """Every part of a model that can be skipped, by the name of its module.

    A part is a module itself, or an object that a module of another library carries.
    """
    parts: dict[str, SparseModule] = {}
    for name, module in model.named_modules():
        found = getattr(module, ATTACHED, module)
        # to ask the protocol of each of hundreds of modules takes milliseconds
        if hasattr(found, "sparsity_method") and isinstance(found, SparseModule):
            parts[name] = found
    return parts


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
