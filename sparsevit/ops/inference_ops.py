"""Operations for inference on the CPU that stay whole in a compiled graph.

Products with weights that were laid out beforehand: PyTorch's ``linear`` brings the weights into
the order that its product reads them in at each call. oneDNN, which comes with PyTorch, can do so
once, and puts GELU or a sum into the same pass. It is what torch.compile calls where it is told
that weights are constants. Here the weights are given to the operation as they are, and what was
made of them is kept beside them: so they remain inputs of a compiled graph, and blocks of one shape
share one.

Attention within windows: a compiler spells out the bias for every window before it calls PyTorch's
attention, which by itself reads the one bias for all.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from sparsevit.ops.attention import heads_apart, window_attention

ROWS = 1568
"""Rows that weights are laid out for: 32 windows of 49. It makes little difference."""

_library = torch.library.Library("sparsevit", "FRAGMENT")
_library.define("packed_linear(Tensor x, Tensor weight, Tensor? bias, bool gelu) -> Tensor")
_library.define("packed_linear_add(Tensor x, Tensor weight, Tensor? bias, Tensor other) -> Tensor")

_library.define(
    "window_attention(Tensor qkv, Tensor bias, int heads, float scale, Tensor? masks) -> Tensor"
)

# weight -> {dtype: (version of the weight, its packed form)}
_packed = WeakTensorKeyDictionary()


def packed_linear(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool = False) -> Tensor:
    """``F.linear``, and ``F.gelu`` of it where asked for, in the dtype of ``x``. Has no gradient.

    The weight is laid out at its first use, and again where PyTorch notes that it has changed; a
    change by ``weight.data`` it does not note.

    Args:
        x: (..., inputs), on the CPU, of a dtype for which :func:`usable`.
        weight: (outputs, inputs), of any floating dtype.
        bias: (outputs,), or None.
        gelu: whether to follow with GELU.

    Returns:
        (..., outputs).
    """
    return torch.ops.sparsevit.packed_linear(x, weight, bias, gelu)


def packed_linear_add(x: Tensor, weight: Tensor, bias: Tensor | None, other: Tensor) -> Tensor:
    """``F.linear(x, weight, bias) + other``; see :func:`packed_linear`.

    Args:
        other: (..., outputs), in the dtype of ``x``.
    """
    return torch.ops.sparsevit.packed_linear_add(x, weight, bias, other)


def whole_window_attention(
    qkv_MNC: Tensor,
    bias_HNN: Tensor,
    num_heads: int,
    scale: float,
    edge_masks_ENN: Tensor | None = None,
) -> Tensor:
    """:func:`~sparsevit.ops.attention.window_attention` as one operation. Has no gradient."""
    return torch.ops.sparsevit.window_attention(qkv_MNC, bias_HNN, num_heads, scale, edge_masks_ENN)


@lru_cache(maxsize=8)
def usable(dtype: torch.dtype) -> bool:
    """Whether this PyTorch has these products in oneDNN, on this CPU, and they come out right."""
    if not torch.backends.mkldnn.is_available() or dtype not in (torch.float32, torch.bfloat16):
        return False
    x, weight, bias, other = (torch.ones(n, 16, dtype=dtype) for n in (3, 16, 1, 3))
    try:
        if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        grown = _linear(x, weight, bias[0], gelu=True)
        summed = _linear_add(x, weight, bias[0], other)
    except (RuntimeError, AttributeError, TypeError):
        # these operations are PyTorch's own, for its compiler, and no promise to others
        return False
    return bool((grown == 17).all() and (summed == 18).all())


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool) -> Tensor:
    how: tuple[Any, ...] = ("gelu", [], "none") if gelu else ("none", [], "")
    packed, bias = _operands(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, *how)


def _linear_add(x: Tensor, weight: Tensor, bias: Tensor | None, other: Tensor) -> Tensor:
    packed, bias = _operands(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise.binary(x, other, packed, bias, "add")


def version(weight: Tensor) -> int:
    """PyTorch's count of changes to a tensor; -1 for an inference tensor, which has none."""
    return -1 if weight.is_inference() else weight._version


def _operands(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    forms = _packed.setdefault(weight, {})
    known, packed = forms.get(x.dtype, (None, None))
    if packed is None or known != version(weight):
        with torch.no_grad():
            packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().to(x.dtype), ROWS)
        forms[x.dtype] = (version(weight), packed)
    return packed, None if bias is None else bias.to(x.dtype)


def _attention(qkv: Tensor, bias: Tensor, heads: int, scale: float, masks: Tensor | None) -> Tensor:
    q, k, v = heads_apart(qkv, 3 * heads).chunk(3, dim=1)
    return window_attention(q, k, v, bias, scale, masks).contiguous()


def _linear_shape(x: Tensor, weight: Tensor, *_: Any) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


def _attention_shape(qkv: Tensor, *_: Any) -> Tensor:
    return qkv.new_empty(*qkv.shape[:-1], qkv.shape[-1] // 3)


def _register(name: str, computed: Callable[..., Tensor], shape: Callable[..., Tensor]) -> None:
    _library.impl(name, computed, "CPU")
    torch.library.register_fake(f"sparsevit::{name}", shape, lib=_library)


_register("packed_linear", _linear, _linear_shape)
_register("packed_linear_add", _linear_add, _linear_shape)
_register("window_attention", _attention, _attention_shape)
