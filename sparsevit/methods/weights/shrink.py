"""A structured model as a smaller dense one: heads and neurons taken out of the tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sparsevit.errors import UserError
from sparsevit.methods.weights.blocks import Block, blocks_of


def shrink(model: nn.Module) -> dict[str, list[int]]:
    """Take every head and neuron out of a model that gives out the same for all inputs, in place.

    A head whose values are zero weights gives out its bias, and a neuron whose row of fc1 is zero
    the activation of its bias: what the next layer makes of these becomes part of its bias. So the
    model computes what it did, in inference.

    Args:
        model: with blocks of mmpretrain's ``VisionTransformer``; one without dead units stays as it
            is.

    Returns:
        ``heads`` and ``neurons``: how many each block has now, at least one.
    """
    blocks = blocks_of(model)
    for block in blocks:
        _shrink_attention(block, _with_one(_heads_with_values(block)))
        _shrink_mlp(block, _with_one(_neurons_that_count(block)))
    return {
        "heads": [block.heads for block in blocks],
        "neurons": [block.fc1.out_features for block in blocks],
    }


def alive_heads(block: Block) -> Tensor:
    """(heads) bool: whose rows of qkv are not all zero."""
    rows = block.qkv.weight.detach().reshape(3, block.heads, -1)
    return (rows != 0).any(dim=2).any(dim=0)


def alive_neurons(block: Block) -> Tensor:
    """(hidden) bool: whose row of fc1 and column of fc2 are not all zero."""
    rows = (block.fc1.weight.detach() != 0).any(dim=1)
    return rows & (block.fc2.weight.detach() != 0).any(dim=0)


def narrow(model: nn.Module, heads: Sequence[int], neurons: Sequence[int]) -> None:
    """Give a model the tensors that :func:`shrink` left of another one, their values to be loaded.

    Args:
        heads, neurons: how many each block has.

    Raises:
        UserError: these are not as many as blocks, or a block has fewer.
    """
    blocks = blocks_of(model)
    for name, counts, sizes in (
        ("heads", heads, [block.heads for block in blocks]),
        ("neurons", neurons, [block.fc1.out_features for block in blocks]),
    ):
        fit = len(counts) == len(sizes)
        if not fit or not all(0 < n <= size for n, size in zip(counts, sizes, strict=True)):
            raise UserError(
                f"widths.{name} is {list(counts)}, for blocks that have {sizes}.",
                "Use the config that `sparsevit convert` wrote beside the weights.",
            )
    for block, head, neuron in zip(blocks, heads, neurons, strict=True):
        _take_heads(block, torch.arange(block.heads) < head)
        _take_neurons(block, torch.arange(block.fc1.out_features) < neuron)


def _with_one(alive: Tensor) -> Tensor:
    """At least the first: a layer without any cannot be built."""
    return alive if alive.any() else torch.arange(len(alive), device=alive.device) == 0


def _heads_with_values(block: Block) -> Tensor:
    values = block.qkv.weight.detach().reshape(3, block.heads, -1)[2]
    alive = (values != 0).any(dim=1)
    if block.proj.bias is None and block.qkv.bias is not None:
        # what the bias of its values gives out has no place to go
        alive |= (block.qkv.bias.detach().reshape(3, block.heads, -1)[2] != 0).any(dim=1)
    return alive


def _neurons_that_count(block: Block) -> Tensor:
    rows = (block.fc1.weight.detach() != 0).any(dim=1)
    columns = (block.fc2.weight.detach() != 0).any(dim=0)
    return columns & (rows if block.fc2.bias is not None else torch.ones_like(rows))


@torch.no_grad()
def _shrink_attention(block: Block, kept: Tensor) -> None:
    given = kept.new_zeros(len(kept), block.head_width, dtype=block.qkv.weight.dtype)
    if block.qkv.bias is not None:
        given = block.qkv.bias.reshape(3, block.heads, -1)[2]
    constant = (given * ~kept[:, None]).flatten()
    if block.proj.bias is not None:
        block.proj.bias.add_(block.proj.weight @ constant)
    _take_heads(block, kept)


@torch.no_grad()
def _shrink_mlp(block: Block, kept: Tensor) -> None:
    if block.fc1.bias is not None and block.fc2.bias is not None:
        block.fc2.bias.add_(block.fc2.weight @ (block.act(block.fc1.bias) * ~kept))
    _take_neurons(block, kept)


def _take_heads(block: Block, kept: Tensor) -> None:
    columns = kept.repeat_interleave(block.head_width)
    _take_rows(block.qkv, columns.repeat(3))
    _take_columns(block.proj, columns)
    block.attention.num_heads = int(kept.sum())
    # what the attention reshapes its heads to
    block.attention.embed_dims = block.proj.in_features


def _take_neurons(block: Block, kept: Tensor) -> None:
    _take_rows(block.fc1, kept)
    _take_columns(block.fc2, kept)


def _take_rows(layer: nn.Linear, kept: Tensor) -> None:
    layer.weight = nn.Parameter(layer.weight.detach()[kept], layer.weight.requires_grad)
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias.detach()[kept], layer.bias.requires_grad)
    layer.out_features = len(layer.weight)


def _take_columns(layer: nn.Linear, kept: Tensor) -> None:
    layer.weight = nn.Parameter(layer.weight.detach()[:, kept], layer.weight.requires_grad)
    layer.in_features = layer.weight.shape[1]
