"""A Swin Transformer's parts in native code: tensors in, ``swin.cpp`` at work, tensors out.

For float32 inference on a CPU. A thread holds a few windows in its own caches from the first norm
to the last residual, where PyTorch writes every step of all windows to memory and reads it again.
"""

from __future__ import annotations

import ctypes
import math
import os
from ctypes import c_double, c_int, c_int64, c_void_p
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsevit.ops.native import build

LOG2_E = math.log2(math.e)
# no weight is left to what is not there: 2 ** -1e30
NOTHING = -1e30
L2_BYTES = 2**20
"""What a core is taken to have where the system does not say."""


class _Norm(ctypes.Structure):
    _fields_ = [("weight", c_void_p), ("bias", c_void_p), ("epsilon", c_double)]


class _Linear(ctypes.Structure):
    _fields_ = [("panels", c_void_p), ("bias", c_void_p)]


class _Block(ctypes.Structure):
    _fields_ = [
        *((name, c_int64) for name in ("channels", "heads", "hidden", "tokens")),
        *((name, _Norm) for name in ("norm1", "norm2")),
        *((name, _Linear) for name in ("qkv", "proj", "grow", "shrink")),
        *((name, c_void_p) for name in ("position_bias", "masks")),
    ]


class _Merging(ctypes.Structure):
    _fields_ = [
        *((name, c_int64) for name in ("images", "height", "width", "channels")),
        ("norm", _Norm),
        ("reduction", _Linear),
        ("outputs", c_int64),
    ]


class _Embedding(ctypes.Structure):
    _fields_ = [
        *((name, c_int64) for name in ("images", "channels", "height", "width", "patch")),
        ("projection", _Linear),
        ("norm", _Norm),
        ("outputs", c_int64),
    ]


class _Windows(ctypes.Structure):
    _fields_ = [
        ("count", c_int64),
        *((name, c_void_p) for name in ("rows", "padding", "kinds")),
    ]


@dataclass
class _Packed:
    """A structure that points into tensors, and these."""

    structure: ctypes.Structure
    tensors: list[Tensor] = field(default_factory=list)

    def hold(self, tensor: Tensor) -> int:
        """Keep a tensor's memory as long as the structure; its address."""
        self.tensors.append(tensor.detach())  # a parameter itself may be given other memory
        return tensor.data_ptr()

    def norm(self, weight: Tensor, bias: Tensor, epsilon: float) -> _Norm:
        return _Norm(self.hold(weight.contiguous()), self.hold(bias.contiguous()), epsilon)

    def linear(self, weight: Tensor, bias: Tensor | None) -> _Linear:
        outputs, inputs = weight.shape
        bias = weight.new_zeros(outputs) if bias is None else bias
        columns = _columns()
        more = -outputs % columns
        weight = F.pad(weight, (0, 0, 0, more)).view(-1, columns, inputs)
        panels = weight.transpose(1, 2).contiguous()
        return _Linear(self.hold(panels), self.hold(F.pad(bias, (0, more)).contiguous()))


class PackedBlock(_Packed):
    """The parameters of a Swin block as the native code reads them; a copy, as large as they are.

    Args:
        norms: the two LayerNorms.
        linears: qkv, proj, and the FFN's two, each with a float32 weight (outputs, inputs).
        heads: number of heads, dividing the channels.
        scale: factor on the logits.
        bias_HNN: (heads, N, N) relative position bias.
        masks_KNN: (K, N, N) masks that windows of kind 0 to K - 1 add to their logits, the first
            of them 0; or None for the plain partition.
    """

    def __init__(
        self,
        norms: tuple[nn.LayerNorm, nn.LayerNorm],
        linears: tuple[nn.Linear, nn.Linear, nn.Linear, nn.Linear],
        heads: int,
        scale: float,
        bias_HNN: Tensor,
        masks_KNN: Tensor | None,
    ) -> None:
        super().__init__(_Block())
        qkv, proj, grow, shrink = linears
        C, N = qkv.in_features, bias_HNN.shape[-1]
        factor = torch.ones(3 * C, 1)
        factor[:C] = scale * LOG2_E
        more = -N % _columns()
        with torch.no_grad():
            qkv_bias = None if qkv.bias is None else qkv.bias * factor[:, 0]
            bias = F.pad(bias_HNN.float() * LOG2_E, (0, more), value=NOTHING).contiguous()
            self.structure = _Block(
                *(C, heads, grow.out_features, N),
                *(self.norm(norm.weight, norm.bias, norm.eps) for norm in norms),
                self.linear(qkv.weight * factor, qkv_bias),
                *(self.linear(part.weight, part.bias) for part in (proj, grow, shrink)),
                self.hold(bias),
                None
                if masks_KNN is None
                else self.hold(F.pad(masks_KNN * LOG2_E, (0, more)).contiguous()),
            )


class PackedMerging(_Packed):
    """The parameters of a patch merging as the native code reads them.

    Args:
        weight, bias: (4 * C,), of the LayerNorm over a patch's tokens side by side.
        epsilon: of the norm.
        reduction_weight: (outputs, 4 * C).
        reduction_bias: (outputs,), or None.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        epsilon: float,
        reduction_weight: Tensor,
        reduction_bias: Tensor | None,
    ) -> None:
        super().__init__(_Merging())
        outputs, channels = reduction_weight.shape
        with torch.no_grad():
            self.structure = _Merging(
                *(0, 0, 0, channels // 4),
                self.norm(weight, bias, epsilon),
                self.linear(reduction_weight, reduction_bias),
                outputs,
            )


class PackedEmbedding(_Packed):
    """The parameters of a patch embedding as the native code reads them.

    Args:
        projection: convolution with a stride of its square kernel, and no padding.
        norm: LayerNorm that follows, or None.
    """

    def __init__(self, projection: nn.Conv2d, norm: nn.LayerNorm | None) -> None:
        super().__init__(_Embedding())
        outputs, channels, side, _ = projection.weight.shape
        with torch.no_grad():
            self.structure = _Embedding(
                *(0, channels, 0, 0, side),
                self.linear(projection.weight.flatten(1), projection.bias),
                _Norm() if norm is None else self.norm(norm.weight, norm.bias, norm.eps),
                outputs,
            )


class PackedNorm(_Packed):
    """The parameters of a LayerNorm as the native code reads them."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__(_Norm())
        self.structure = self.norm(norm.weight, norm.bias, norm.eps)


def usable() -> bool:
    """Whether there is native code here: a C++ compiler, and PyTorch's OpenMP is GCC's."""
    return _library() is not None


def run_block(
    packed: PackedBlock,
    x_RC: Tensor,
    row_MN: Tensor,
    is_padding_MN1: Tensor | None = None,
    kind_M: Tensor | None = None,
    pad_before_norm: bool = False,
) -> None:
    """A Swin block (Swin, section 3.2) on the windows listed, in place.

    Args:
        packed: parameters.
        x_RC: (rows, C) float32 map, contiguous; overwritten.
        row_MN: (M, N) int64 rows of each window's tokens. No row may occur twice, but for padding.
        is_padding_MN1: (M, N, 1) bool, tokens that count as zeros and are not written; or None.
        kind_M: (M,) int64, which of the masks each window adds; None for none.
        pad_before_norm: whether padding is normalised, or 0 after the norm.

    Raises:
        MemoryError: there is none left for a few windows' tokens.
    """
    listed = [
        None if tensor is None else tensor.contiguous()
        for tensor in (row_MN, is_padding_MN1, kind_M)
    ]
    windows = _Windows(len(row_MN), *(None if t is None else t.data_ptr() for t in listed))
    _call(
        "sparsevit_swin_block",
        ctypes.byref(packed.structure),
        ctypes.byref(windows),
        x_RC.data_ptr(),
        int(pad_before_norm),
    )


def merge_patches(packed: PackedMerging, x_BHWC: Tensor) -> Tensor:
    """Patch merging (Swin, section 3.1): (B, H, W, C) -> (B, H / 2, W / 2, outputs).

    Args:
        packed: parameters.
        x_BHWC: float32 map, contiguous; an odd side is padded with zeros.

    Raises:
        MemoryError: there is none left for a few rows of patches.
    """
    B, H, W, C = x_BHWC.shape
    known = packed.structure
    merging = _Merging(B, H, W, C, known.norm, known.reduction, known.outputs)
    out = x_BHWC.new_empty(B, -(-H // 2), -(-W // 2), known.outputs)
    _call("sparsevit_merge_patches", ctypes.byref(merging), x_BHWC.data_ptr(), out.data_ptr())
    return out


def embed(packed: PackedEmbedding, images_BCHW: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Patch embedding: (B, C, H, W) images -> (B, patches, outputs), and patches down and across.

    Args:
        packed: parameters.
        images_BCHW: float32, contiguous; padded with zeros at the end to whole patches.

    Raises:
        MemoryError: there is none left for a few rows of patches.
    """
    B, _, H, W = images_BCHW.shape
    known = packed.structure
    embedding = _Embedding(
        B, known.channels, H, W, known.patch, known.projection, known.norm, known.outputs
    )
    down, over = -(-H // known.patch), -(-W // known.patch)
    out = images_BCHW.new_empty(B, down * over, known.outputs)
    _call("sparsevit_embed", ctypes.byref(embedding), images_BCHW.data_ptr(), out.data_ptr())
    return out, (down, over)


def feature_map(packed: PackedNorm, x_BLC: Tensor) -> Tensor:
    """LayerNorm, and channels first: (B, L, C) -> (B, C, L).

    Args:
        packed: parameters, for C channels.
        x_BLC: float32, contiguous.

    Raises:
        MemoryError: there is none left for a few tokens.
    """
    B, L, C = x_BLC.shape
    out = x_BLC.new_empty(B, C, L)
    norm = ctypes.byref(packed.structure)
    _call("sparsevit_feature_map", norm, B, L, C, x_BLC.data_ptr(), out.data_ptr())
    return out


def _call(name: str, *arguments: object) -> None:
    library = _library()
    assert library is not None
    if getattr(library, name)(*arguments, torch.get_num_threads(), _cache_bytes()):
        raise MemoryError(f"{name} could not allocate memory for its tokens.")


@cache
def _library() -> ctypes.CDLL | None:
    library = build.load(Path(__file__).with_name("swin.cpp"))
    if library is not None:
        library.sparsevit_columns.restype = c_int64
        for name, arguments in (
            ("sparsevit_swin_block", [c_void_p, c_void_p, c_void_p, c_int64]),
            ("sparsevit_embed", [c_void_p, c_void_p, c_void_p]),
            ("sparsevit_merge_patches", [c_void_p, c_void_p, c_void_p]),
            ("sparsevit_feature_map", [c_void_p, *[c_int64] * 3, c_void_p, c_void_p]),
        ):
            function = getattr(library, name)
            function.argtypes = [*arguments, c_int64, c_int64]
            function.restype = c_int
    return library


@cache
def _columns() -> int:
    library = _library()
    assert library is not None
    return int(library.sparsevit_columns())


@cache
def _cache_bytes() -> int:
    try:
        return os.sysconf("SC_LEVEL2_CACHE_SIZE") or L2_BYTES
    except (ValueError, OSError):
        return L2_BYTES
