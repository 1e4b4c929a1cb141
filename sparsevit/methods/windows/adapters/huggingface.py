"""What the adapters of Hugging Face transformers share; it imports none of its models."""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

from torch import nn

from sparsevit.errors import UserError
from sparsevit.methods.windows.block import PositionTable, WindowBlock, in_sequence

Block = TypeVar("Block", bound=type[nn.Module])


def checkpoints_itself(block: Block) -> Block:
    """For subclasses of transformers' ``GradientCheckpointingLayer``, whose ``forward`` it wraps.

    A sparse block computes the same windows again in backward (``WindowBlock.checkpointed``). The
    wrapper would choose windows again too, when other images may have passed through the model.
    """
    block.forward = inspect.unwrap(block.forward)
    return block


def refuse_attentions(output_attentions: Any) -> None:
    """A block that skips windows has no weights for them.

    Raises:
        UserError: attention weights are asked for.
    """
    if output_attentions:
        raise UserError(
            "A sparse block cannot return attention weights.",
            "Leave output_attentions off, or call densify(model) first.",
        )


def swin_view(block: Any) -> WindowBlock:
    """A Swin layer as MaskFormer and Donut copied it, with BERT's names."""
    attention, output = block.attention.self, block.attention.output
    return WindowBlock(
        module=block,
        norm1=block.layernorm_before,
        norm2=block.layernorm_after,
        qkv=(attention.query, attention.key, attention.value),
        out=(output.dense, output.dropout),
        ffn=in_sequence(
            (
                block.intermediate.dense,
                block.intermediate.intermediate_act_fn,
                block.output.dense,
                block.output.dropout,
            )
        ),
        drop_path1=block.drop_path,
        drop_path2=nn.Identity(),
        heads=attention.num_attention_heads,
        scale=attention.attention_head_size**-0.5,
        position=PositionTable(
            attention.relative_position_bias_table, attention.relative_position_index
        ),
        window=(block.window_size, block.window_size),
        shift=(block.shift_size, block.shift_size),
        attention_dropout=attention.dropout.p if attention.training else 0.0,
    )
