"""Which way an attention is computed: native code where it serves, else PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sparsevit.errors import UserError
from sparsevit.methods.attention.forward import (
    Choice,
    class_attention,
    patch_attention,
    squared_error,
    sum_tiles,
)
from sparsevit.methods.attention.predictor import MaskPredictor
from sparsevit.methods.windows.routes.native import infers_natively, packed_once
from sparsevit.ops.native import attention as native


def attend(
    predictor: MaskPredictor,
    q_BHnd: Tensor,
    k_BHnd: Tensor,
    v_BHnd: Tensor,
    tokens_Bn: Tensor | None = None,
) -> Tensor:
    """Attention as a predictor is set: sparse, or dense where it leaves nothing out or learns.

    Args:
        predictor: of the connections; where it learns, its ``error`` is the summed squared error of
            its weights to dense attention (the first stage of section 3.4's training).
        q_BHnd, k_BHnd, v_BHnd: queries, keys and values.
        tokens_Bn: which of the predictor's N tokens these are; all of them where None.

    Returns:
        (B, H, n, d).

    Raises:
        UserError: there are not as many tokens as the predictor is made for.
    """
    n = k_BHnd.shape[2]
    if tokens_Bn is None and n != predictor.num_tokens:
        raise UserError(
            f"The images have {n} tokens, and the predictor of connections is made for "
            f"{predictor.num_tokens}.",
            "Resize the images to the size that the model is built for, or build it with theirs as "
            "img_size and train its predictors anew.",
        )
    if predictor.note is not None:
        predictor.note(predictor, q_BHnd, k_BHnd, tokens_Bn)
    if predictor.learns:
        reduced, mixed = predictor.reduced(q_BHnd.detach(), k_BHnd.detach(), tokens_Bn)
        basis, choice = predictor.basis(tokens_Bn), predictor.choice(n)
        predictor.error = squared_error(q_BHnd, k_BHnd, reduced, mixed, basis, choice)
    elif not predictor.is_dense(n):
        return sparse_attention(predictor, q_BHnd, k_BHnd, v_BHnd, tokens_Bn)
    return F.scaled_dot_product_attention(q_BHnd, k_BHnd, v_BHnd)


def sparse_attention(
    predictor: MaskPredictor,
    q_BHnd: Tensor,
    k_BHnd: Tensor,
    v_BHnd: Tensor,
    tokens_Bn: Tensor | None = None,
) -> Tensor:
    """Attention of all tokens to those that they choose: (B, H, n, d).

    Args:
        predictor: leaves something out of so many tokens; it gets no gradient.
        q_BHnd, k_BHnd, v_BHnd: queries, keys and values.
        tokens_Bn: which of the predictor's N tokens these are; all of them where None.
    """
    with torch.no_grad():
        reduced, mixed = predictor.reduced(q_BHnd, k_BHnd, tokens_Bn)
    of_class = class_attention(q_BHnd, k_BHnd) @ v_BHnd
    choice = predictor.choice(k_BHnd.shape[2])
    if serves(predictor, q_BHnd):
        qkv = q_BHnd, k_BHnd, v_BHnd
        out_BnHd = _natively(predictor, qkv, reduced, mixed, choice, tokens_Bn)
        out_BnHd[:, 0] = of_class[:, :, 0]
        return out_BnHd.transpose(1, 2)
    with torch.no_grad():
        basis = predictor.basis(tokens_Bn)
    patches = patch_attention(q_BHnd, k_BHnd, v_BHnd, reduced, mixed, basis, choice)
    return torch.cat([of_class, patches], dim=2)


def serves(predictor: MaskPredictor, q_BHnd: Tensor) -> bool:
    """Whether native code computes this: in inference in float32 on a CPU, where there is a
    compiler for it, and in no graph."""
    return (
        not torch.compiler.is_compiling()
        and infers_natively(predictor, q_BHnd)
        and predictor.proj_n.dtype == torch.float32
        and native.usable()
    )


def _natively(
    predictor: MaskPredictor,
    qkv: tuple[Tensor, Tensor, Tensor],
    reduced_BHRc: Tensor,
    mixed_BHcK: Tensor,
    choice: Choice,
    tokens_Bn: Tensor | None,
) -> Tensor:
    def pack() -> tuple[native.PackedBasis, Tensor]:
        basis = predictor.basis().contiguous()
        return native.PackedBasis(basis), sum_tiles(basis)

    basis, sums = packed_once(predictor, [predictor.proj_back_n], pack)
    keep: int | float = choice.keep
    tile_sums = None
    if choice.blocks:
        keep = choice.tiles(qkv[1].shape[2])
        tile_sums = sums if tokens_Bn is None else sum_tiles(predictor.basis(tokens_Bn))[:, 0]
    return native.sparse_attention(
        *qkv, reduced_BHRc, mixed_BHcK, basis, choice.coefficients, keep, tokens_Bn, tile_sums
    )
