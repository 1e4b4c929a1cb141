"""Sparsifiner written out from its equations: one image, head and query after the other, float64.

The full product of queries and keys is masked with -inf, as in the paper's own code. Pruned tokens
are gone. Blocks are ours: tiles of 16 patches, and the class token's key for every query.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

TILE = 16


class Reference(NamedTuple):
    logits: Tensor
    masks: list[Tensor]
    coefficients: list[Tensor]


def reference(config: Any, state: dict[str, Tensor], images: Tensor) -> Reference:
    """Logits in evaluation, masks and coefficients of every layer.

    Args:
        config: ``SparsifinerConfig``.
        state: float64 weights by name, which may require gradients.
        images: (B, 3, H, W) float64.
    """
    made = [_image(config, state, image) for image in images]
    logits = torch.stack([one[0] for one in made])
    layers = range(config.depth)
    masks = [torch.stack([one[1][i] for one in made]) for i in layers]
    return Reference(logits, masks, [torch.stack([one[2][i] for one in made]) for i in layers])


def _image(config, state, image):
    x = torch.cat([state["cls_token"][0], _patches(config, state, image)]) + state["pos_embed"][0]
    tokens = list(range(len(x)))
    masks, weights = [], []
    halved = 1.0 if config.architecture == "deit" else 2.0
    rates = config.keep_rate if isinstance(config.keep_rate, list) else None
    for i in range(config.depth):
        block = {
            k.removeprefix(f"blocks.{i}."): v
            for k, v in state.items()
            if k.startswith(f"blocks.{i}.")
        }
        rate = rates[i] if rates else config.keep_rate
        y, of_class, mask, coefficients = _attention(
            config, block, _norm(config, x, block, "norm1"), tokens, rate
        )
        x = x + y / halved
        masks.append(mask)
        weights.append(coefficients)
        if i in (config.prune_tokens or {}):
            count = math.ceil(config.prune_tokens[i] * (len(state["pos_embed"][0]) - 1))
            order = sorted(range(1, len(x)), key=lambda t: (-of_class[t].item(), t))
            kept = [0, *sorted(order[:count])]
            x, tokens = x[kept], [tokens[t] for t in kept]
        y = _norm(config, x, block, "norm2") @ block["mlp.fc1.weight"].T + block["mlp.fc1.bias"]
        y = 0.5 * y * (1 + torch.erf(y / math.sqrt(2)))
        x = x + (y @ block["mlp.fc2.weight"].T + block["mlp.fc2.bias"]) / halved
    x = _norm(config, x, state, "norm")
    logits = x[0] @ state["head.weight"].T + state["head.bias"]
    if config.architecture == "lvvit":
        of_patches = x[1:] @ state["aux_head.weight"].T + state["aux_head.bias"]
        logits = logits + 0.5 * of_patches.max(0).values
    return logits, masks, weights


def _patches(config, state, image):
    x = image
    side = config.patch_size
    if config.architecture == "lvvit":
        for i, (stride, padding) in enumerate([(2, 3), (1, 1), (1, 1)], start=1):
            weight = state[f"patch_embed.conv{i}.weight"]
            x = torch.nn.functional.conv2d(x[None], weight, None, stride, padding)[0]
            at = {
                name: state[f"patch_embed.bn{i}.{name}"][:, None, None]
                for name in ("running_mean", "running_var", "weight", "bias")
            }
            x = (x - at["running_mean"]) / (at["running_var"] + 1e-5).sqrt()
            x = (x * at["weight"] + at["bias"]).clamp(min=0)
        side //= 2
    weight, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    rows = []
    for top in range(0, x.shape[1], side):
        for left in range(0, x.shape[2], side):
            patch = x[:, top : top + side, left : left + side]
            rows.append((weight * patch).sum((1, 2, 3)) + bias)
    return torch.stack(rows)


def _norm(config, x, state, name):
    epsilon = 1e-6 if config.architecture == "deit" else 1e-5
    centred = x - x.mean(-1, keepdim=True)
    x = centred / (centred.pow(2).mean(-1, keepdim=True) + epsilon).sqrt()
    return x * state[f"{name}.weight"] + state[f"{name}.bias"]


def _attention(config, block, x, tokens, rate):
    C = x.shape[1]
    H, d = config.num_heads, C // config.num_heads
    qkv = x @ block["attn.qkv.weight"].T
    if config.architecture == "deit":
        qkv = qkv + block["attn.qkv.bias"]
    heads, of_class, masks, coefficients = [], 0, [], []
    for h in range(H):
        q, k, v = (qkv[:, part * C + h * d : part * C + (h + 1) * d] for part in range(3))
        mask, weights = _mask(config, block, q.detach(), k.detach(), tokens, rate)
        logits = (q @ k.T * d**-0.5).masked_fill(~mask, -math.inf)
        attention = logits.softmax(-1).masked_fill(~mask.any(-1, keepdim=True), 0.0)
        heads.append(attention @ v)
        of_class = of_class + attention[0].detach() / H
        N = len(block["attn.mask_predictor.proj_n"])
        whole = torch.zeros(N, N, dtype=torch.bool)
        for row, token in enumerate(tokens):
            whole[token, tokens] = mask[row]
        masks.append(whole)
        all_weights = weights.new_zeros(N - 1, weights.shape[-1])
        all_weights[[token - 1 for token in tokens[1:]]] = weights
        coefficients.append(all_weights)
    out = torch.cat(heads, dim=1) @ block["attn.proj.weight"].T + block["attn.proj.bias"]
    return out, of_class, torch.stack(masks), torch.stack(coefficients)


@torch.no_grad()
def _mask(config, block, q, k, tokens, rate):
    own = {
        name.removeprefix("attn.mask_predictor."): value
        for name, value in block.items()
        if name.startswith("attn.mask_predictor.")
    }
    n, N = len(tokens), len(own["proj_n"])
    q_c = q @ own["proj_c_q.weight"].T + own["proj_c_q.bias"]
    k_c = k @ own["proj_c_k.weight"].T + own["proj_c_k.bias"]
    cheap = q_c @ (k_c.T @ own["proj_n"][tokens]) * config.num_heads**-0.5
    weights = cheap[1:].softmax(-1)
    basis = own["proj_back_n"][tokens].T.abs()
    basis = torch.where(basis > config.basis_threshold, basis, torch.zeros_like(basis))
    for row in weights:
        if config.coefficients < 1:
            row[row <= config.coefficients] = 0
        else:
            order = sorted(range(len(row)), key=lambda i: (-row[i].item(), i))
            row[order[config.coefficients :]] = 0
    approx = weights @ basis
    mask = torch.zeros(n, n, dtype=torch.bool)
    mask[0] = True
    budget = min(math.ceil(rate * N), n)
    if rate == 1:
        mask[:] = True
    elif config.connections == "blocks":
        _choose_tiles(mask, approx, budget)
    elif config.connections == "topk":
        for i, row in enumerate(approx, start=1):
            order = sorted(range(n), key=lambda j: (-row[j].item(), j))
            mask[i, order[:budget]] = True
    else:
        mask[1:] = approx > config.connections
    return mask, weights


def _choose_tiles(mask, approx, budget):
    n = len(mask)
    tiles = [range(first, min(first + TILE, n)) for first in range(1, n, TILE)]
    count = max(1, math.ceil((budget - 1) / TILE))
    for queries in tiles:
        rows = approx[[query - 1 for query in queries]]
        sums = [rows[:, list(keys)].sum().item() for keys in tiles]
        best = sorted(range(len(tiles)), key=lambda t: (-sums[t], t))[:count]
        for query in queries:
            mask[query, 0] = True
            for tile in best:
                mask[query, list(tiles[tile])] = True
