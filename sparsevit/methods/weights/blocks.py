"""What pruning sees of a transformer block: four linear layers, and how many heads there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from sparsevit.errors import UserError


@dataclass(frozen=True)
class Block:
    """A block of mmpretrain's ``VisionTransformer``.

    Attributes:
        name: of the block in its model.
        attention: the module that splits what ``qkv`` gives into heads.
        qkv: (3 * heads * width, C), queries of all heads first.
        proj: (C, heads * width).
        fc1, act, fc2: the MLP: (hidden, C), its activation, (C, hidden).
    """

    name: str
    attention: Any
    qkv: nn.Linear
    proj: nn.Linear
    fc1: nn.Linear
    act: nn.Module
    fc2: nn.Linear

    @property
    def heads(self) -> int:
        """How many there are."""
        return int(self.attention.num_heads)

    @property
    def head_width(self) -> int:
        """Numbers that a head gives out for a token."""
        return self.qkv.out_features // (3 * self.heads)


def blocks_of(model: nn.Module) -> list[Block]:
    """The blocks of every vision transformer in a model, in its order.

    Raises:
        UserError: the width of a block's attention is no multiple of its heads.
    """
    return [block for name, module in model.named_modules() for block in _block(name, module)]


def _block(name: str, module: Any) -> list[Block]:
    attention: Any = getattr(module, "attn", None)
    mlp = getattr(module, "ffn", None)
    qkv, proj = getattr(attention, "qkv", None), getattr(attention, "proj", None)
    layers: Any = getattr(mlp, "layers", None)
    if not (isinstance(qkv, nn.Linear) and isinstance(proj, nn.Linear)):
        return []
    # an MLP of more than two layers, or a gated one, has another form
    if not isinstance(layers, nn.Sequential) or len(layers) != 3:
        return []
    hidden: Any = layers[0]
    fc1, act, fc2 = hidden[0], hidden[1], layers[1]
    if not (isinstance(fc1, nn.Linear) and isinstance(fc2, nn.Linear)):
        return []
    heads = int(attention.num_heads)
    if qkv.out_features % (3 * heads):
        raise UserError(
            f"{name} has {heads} heads, which do not divide its {qkv.out_features // 3} channels.",
            "Set arch to one whose num_heads divides embed_dims.",
        )
    return [Block(name, attention, qkv, proj, fc1, act, fc2)]
