"""Sparsifiner's attention (Wei et al., CVPR 2023, arXiv 2303.13755), from top to bottom.

For every image and head a light predictor gives each query a weight for every key. A query attends
to the keys of its largest weights, and to no others: reduce queries and keys, weigh a few basis
rows, add these up, choose, attend. The class token attends to all.

The predictor's product has no more than ``K = N // reduce_n`` columns, and of these a query uses a
few, so weights exist for a part of the queries at a time and (N, N) of anything never does: not in
inference, where keys and values are gathered, and beyond ``TRAINED_BYTES`` not in training, where
what a part of the queries needs is computed again in backward.

Shapes: B images, H heads of d channels, n tokens (the class token first, patches behind it), of the
N that the predictor was made for; R rows, the queries of patches; c reduced channels; K rows of the
basis; T tiles of 16 patches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

TILE = 16
"""Queries that share their keys in blocks, and keys that come together."""

PART_BYTES = 32 * 2**20
"""What the largest tensor of a part of the queries may take in inference."""

TRAINED_BYTES = 256 * 2**20
"""The same in training; attention that fits is kept for backward."""


@dataclass(frozen=True)
class Choice:
    """How queries choose their keys.

    Args:
        coefficients: a query uses the basis rows of so many largest coefficients; below 1, those
            of coefficients above it.
        keep: keys of a query, those of the largest weights; below 1, those of weights above it.
        blocks: 16 queries share their keys, whole tiles of 16, of the largest sums of weights; and
            the class token's.
    """

    coefficients: int | float
    keep: int | float
    blocks: bool = False

    def tiles(self, tokens: int) -> int:
        """Tiles of keys that a tile of queries keeps in blocks, of ``tokens`` with the class's."""
        return min(max(1, math.ceil((self.keep - 1) / TILE)), tiles_in(tokens))

    def keeps_all(self, tokens: int) -> bool:
        """Whether nothing of so many tokens is left out."""
        if self.blocks:
            return self.tiles(tokens) == tiles_in(tokens)
        return self.keep >= tokens


def tiles_in(tokens: int) -> int:
    """Tiles of the patches among so many tokens; the last one may not be full."""
    return math.ceil((tokens - 1) / TILE)


def split_heads(qkv_BnX: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, (B, H, n, d) each, of a product (B, n, 3 * H * d)."""
    q, k, v = qkv_BnX.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind()
    return q, k, v


# --- weigh the basis ------------------------------------------------------------------------------


def coefficients(q_BHRc: Tensor, mixed_BHcK: Tensor, choice: Choice) -> Tensor:
    """What queries weigh the basis rows by, (B, H, R, K); 0 for those that are left out (section
    3.2)."""
    weights = (q_BHRc @ mixed_BHcK).softmax(-1)
    if choice.coefficients < 1:
        return F.threshold(weights, choice.coefficients, 0.0)
    count = min(int(choice.coefficients), weights.shape[-1])
    return weights * largest(weights, count)


def largest(values: Tensor, count: int) -> Tensor:
    """Which ``count`` of the last dimension are the largest, as bool; of equal ones the first."""
    least = values.topk(count, dim=-1).values[..., -1:]
    above, ties = values > least, values == least
    left = count - above.sum(-1, keepdim=True)
    return above | (ties & (ties.cumsum(-1) <= left))


def places(kept: Tensor, count: int) -> Tensor:
    """Where the ``count`` that are kept of the last dimension are, ascending; shapes are fixed, as
    graphs of other runtimes need them."""
    size = kept.shape[-1]
    ahead = torch.arange(size, 0, -1, device=kept.device)
    return (kept * ahead).topk(count, dim=-1).indices


# --- choose ---------------------------------------------------------------------------------------


def kept_keys(coefficients_BHRK: Tensor, basis: Tensor, choice: Choice) -> Tensor:
    """Which keys queries attend to, (B, H, R, n) bool, by the largest of ``coefficients @ basis``.

    Args:
        coefficients_BHRK: of some queries.
        basis: (K, n), or (B, 1, K, n).
        choice: not in blocks.
    """
    weights = coefficients_BHRK @ basis
    return weights > choice.keep if choice.keep < 1 else largest(weights, int(choice.keep))


def kept_tiles(coefficients_BHRK: Tensor, tile_sums: Tensor, count: int) -> Tensor:
    """Which tiles of keys each tile of queries attends to, (B, H, T, count), ascending.

    Args:
        coefficients_BHRK: of some queries, from the first of a tile on.
        tile_sums: (K, tiles), or (B, 1, K, tiles), the basis summed over each tile of keys.
        count: tiles to keep.
    """
    rows = F.pad(coefficients_BHRK, (0, 0, 0, -coefficients_BHRK.shape[-2] % TILE))
    weights = rows.unflatten(-2, (-1, TILE)).sum(-2) @ tile_sums
    return places(largest(weights, count), count)


def sum_tiles(basis: Tensor) -> Tensor:
    """A basis (..., n) summed over the tiles of its patches: (..., tiles)."""
    patches = F.pad(basis[..., 1:], (0, -(basis.shape[-1] - 1) % TILE))
    return patches.unflatten(-1, (-1, TILE)).sum(-1)


def tile_mask(tiles_BHTt: Tensor, rows: int, tokens: int) -> Tensor:
    """Which keys queries attend to in blocks, (B, H, rows, tokens) bool."""
    kept = tiles_BHTt.new_zeros(*tiles_BHTt.shape[:-1], tiles_in(tokens), dtype=torch.bool)
    kept.scatter_(-1, tiles_BHTt, True)
    patches = kept.repeat_interleave(TILE, -1).repeat_interleave(TILE, -2)
    return F.pad(patches[..., :rows, : tokens - 1], (1, 0), value=True)


# --- attend ---------------------------------------------------------------------------------------


def class_attention(q_BHnd: Tensor, k_BHnd: Tensor) -> Tensor:
    """What the class token attends to, (B, H, 1, n): all tokens."""
    scale = q_BHnd.shape[-1] ** -0.5
    return ((q_BHnd[..., :1, :] * scale) @ k_BHnd.transpose(-2, -1)).softmax(-1)


def masked_attention(q_BHRd: Tensor, k_BHnd: Tensor, v_BHnd: Tensor, mask_BHRn: Tensor) -> Tensor:
    """Attention of queries to the keys of a mask, (B, H, R, d), by dense products.

    A query without any key gets 0.
    """
    logits = (q_BHRd * q_BHRd.shape[-1] ** -0.5) @ k_BHnd.transpose(-2, -1)
    return logits.masked_fill(~mask_BHRn, -math.inf).softmax(-1).nan_to_num() @ v_BHnd


def gathered_attention(
    q_BHRd: Tensor, k_BHnd: Tensor, v_BHnd: Tensor, mask_BHRn: Tensor, keep: int | None = None
) -> Tensor:
    """The same by the listed pairs alone: each query's keys and values are gathered.

    Args:
        keep: keys of each query; None where they have different numbers.
    """
    B, H, _, n = mask_BHRn.shape
    counts = mask_BHRn.sum(-1, keepdim=True) if keep is None else None
    most = int(counts.max()) if counts is not None else keep or 0
    index = places(mask_BHRn, most)
    firsts = torch.arange(0, B * H * n, n, device=index.device).view(B, H, 1, 1)
    flat = index + firsts
    scaled = (q_BHRd * q_BHRd.shape[-1] ** -0.5).unsqueeze(-1)
    logits = (k_BHnd.flatten(0, 2)[flat] @ scaled)[..., 0]
    if counts is not None:
        missing = torch.arange(most, device=index.device) >= counts
        logits = logits.masked_fill(missing, -math.inf)
    weights = logits.softmax(-1)
    # a query without any key
    weights = weights if counts is None else weights.nan_to_num()
    return (weights.unsqueeze(-2) @ v_BHnd.flatten(0, 2)[flat])[..., 0, :]


def tiled_attention(q_BHRd: Tensor, k_BHnd: Tensor, v_BHnd: Tensor, tiles_BHTt: Tensor) -> Tensor:
    """Attention of tiles of queries to tiles of keys and the class token, by small products."""
    B, H, n, d = k_BHnd.shape
    R, tiles = q_BHRd.shape[-2], tiles_in(n)
    firsts = torch.arange(0, B * H * tiles, tiles, device=tiles_BHTt.device).view(B, H, 1, 1)
    padding = tiles * TILE + 1 - n

    def gathered(x_BHnd: Tensor) -> Tensor:
        """The class token and the kept tiles: (B, H, T, 1 + t * TILE, d)."""
        x_PTd = F.pad(x_BHnd[..., 1:, :], (0, 0, 0, padding)).reshape(-1, TILE * d)
        patches = x_PTd[tiles_BHTt + firsts].view(*tiles_BHTt.shape[:-1], -1, d)
        of_class = x_BHnd[..., :1, :].unsqueeze(2).expand(*patches.shape[:-2], 1, d)
        return torch.cat([of_class, patches], dim=-2)

    q_BHTtd = F.pad(q_BHRd * d**-0.5, (0, 0, 0, -R % TILE)).unflatten(-2, (-1, TILE))
    logits = q_BHTtd @ gathered(k_BHnd).transpose(-2, -1)
    if padding:
        # the last tile is ascending, so its padding is at the end of what was gathered
        missing = F.pad(
            (tiles_BHTt == tiles - 1)[..., -1:].expand(-1, -1, -1, padding),
            (logits.shape[-1] - padding, 0),
        )
        logits = logits.masked_fill(missing.unsqueeze(-2), -math.inf)
    return (logits.softmax(-1) @ gathered(v_BHnd)).flatten(2, 3)[..., :R, :]


def patch_attention(
    q_BHnd: Tensor,
    k_BHnd: Tensor,
    v_BHnd: Tensor,
    reduced_BHRc: Tensor,
    mixed_BHcK: Tensor,
    basis: Tensor,
    choice: Choice,
) -> Tensor:
    """Attention of all patches to the keys that they choose, a part of them at a time.

    Args:
        q_BHnd, k_BHnd, v_BHnd: queries, keys and values of all tokens.
        reduced_BHRc, mixed_BHcK: what gives the coefficients; no gradient goes there.
        basis: (K, n), or (B, 1, K, n).
        choice: leaves something out.

    Returns:
        (B, H, n - 1, d).
    """
    R, n = reduced_BHRc.shape[-2], k_BHnd.shape[-2]
    trained = torch.is_grad_enabled()
    sums = sum_tiles(basis) if choice.blocks else None

    def attended(q_BHRd: Tensor, k_BHnd: Tensor, v_BHnd: Tensor, reduced: Tensor) -> Tensor:
        with torch.no_grad():
            weights = coefficients(reduced, mixed_BHcK, choice)
            if sums is None:
                mask = kept_keys(weights, basis, choice)
            else:
                tiles = kept_tiles(weights, sums, choice.tiles(n))
                if not trained:
                    return tiled_attention(q_BHRd, k_BHnd, v_BHnd, tiles)
                mask = tile_mask(tiles, reduced.shape[-2], n)
        if trained:
            return masked_attention(q_BHRd, k_BHnd, v_BHnd, mask)
        keep = None if choice.keep < 1 else int(choice.keep)
        return gathered_attention(q_BHRd, k_BHnd, v_BHnd, mask, keep)

    bytes_of_a_row = _bytes_of_a_row(k_BHnd, choice, trained)
    rows = max(1, (TRAINED_BYTES if trained else PART_BYTES) // bytes_of_a_row)
    rows = max(TILE, rows // TILE * TILE)
    part: Callable[..., Tensor] = attended
    if trained and rows < R:
        part = _again_in_backward(attended)
    queries = q_BHnd[..., 1:, :].split(rows, dim=-2)
    parts = zip(queries, reduced_BHRc.split(rows, dim=-2), strict=True)
    return torch.cat([part(q, k_BHnd, v_BHnd, reduced) for q, reduced in parts], dim=-2)


def squared_error(
    q_BHnd: Tensor,
    k_BHnd: Tensor,
    reduced_BHRc: Tensor,
    mixed_BHcK: Tensor,
    basis: Tensor,
    choice: Choice,
) -> Tensor:
    """The squared difference between the weights of the patches' queries and their dense attention,
    summed over all pairs; only the weights get a gradient (section 3.4)."""

    def error(q_BHRd: Tensor, k_BHnd: Tensor, reduced: Tensor, mixed: Tensor, of: Tensor) -> Tensor:
        with torch.no_grad():
            logits = (q_BHRd * q_BHRd.shape[-1] ** -0.5) @ k_BHnd.transpose(-2, -1)
            attention = logits.softmax(-1)
        weights = coefficients(reduced, mixed, choice) @ of
        return (weights.float() - attention.float()).square().sum()

    rows = max(1, TRAINED_BYTES // _bytes_of_a_row(k_BHnd, choice, trained=True))
    part: Callable[..., Tensor] = (
        error if rows >= reduced_BHRc.shape[-2] else _again_in_backward(error)
    )
    queries = q_BHnd[..., 1:, :].split(rows, dim=-2)
    parts = zip(queries, reduced_BHRc.split(rows, dim=-2), strict=True)
    return torch.stack([part(q, k_BHnd, red, mixed_BHcK, basis) for q, red in parts]).sum()


def _bytes_of_a_row(k_BHnd: Tensor, choice: Choice, trained: bool) -> int:
    """What the largest tensor takes for one query of each image and head."""
    B, H, n, d = k_BHnd.shape
    numbers = n
    if choice.blocks and not trained:
        numbers = (choice.tiles(n) + 1) * d
    elif not trained and choice.keep >= 1:
        numbers = max(n, int(choice.keep) * d)
    return B * H * numbers * k_BHnd.itemsize


def _again_in_backward(part: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``part``, of which nothing but its arguments is kept."""

    def checkpointed(*arguments: Tensor) -> Tensor:
        return checkpoint(part, *arguments, use_reentrant=False)

    return checkpointed
