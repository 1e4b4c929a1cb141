"""Sparsifiner's attention in native code: tensors in, ``attention.cpp`` at work, tensors out.

For float32 inference on a CPU.
"""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int, c_int64, c_void_p
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sparsevit.ops.native import build
from sparsevit.ops.native.swin import LOG2_E


class _Problem(ctypes.Structure):
    _fields_ = [
        *((name, c_int64) for name in ("images", "heads", "tokens", "width", "channels")),
        ("scale", c_float),
        *((name, c_void_p) for name in ("q", "k", "v")),
        *((name, c_int64) for name in ("reduced", "rows")),
        *((name, c_void_p) for name in ("reduced_q", "panels")),
        ("coefficients", c_int64),
        ("least_coefficient", c_float),
        ("keep", c_int64),
        ("least_weight", c_float),
        ("positions", c_int64),
        *((name, c_void_p) for name in ("offsets", "entries", "present")),
        ("tiles", c_int64),
        ("tile_sums", c_void_p),
        ("tile_sums_stride", c_int64),
        *((name, c_void_p) for name in ("slices", "out")),
    ]


class PackedBasis:
    """The entries of a basis that are not 0, row by row.

    Args:
        basis_KN: (K, N) float32, from 0 up.
    """

    def __init__(self, basis_KN: Tensor) -> None:
        row, column = basis_KN.nonzero(as_tuple=True)
        self.shape = tuple(basis_KN.shape)
        self.offsets = F.pad(row.bincount(minlength=len(basis_KN)).cumsum(0), (1, 0))
        values = basis_KN[row, column].view(torch.int32)
        self.entries = torch.stack([column.int(), values], dim=1)


def usable() -> bool:
    """Whether there is native code here: a C++ compiler, and PyTorch's OpenMP is GCC's."""
    return _library() is not None


def sparse_attention(
    q_BHnd: Tensor,
    k_BHnd: Tensor,
    v_BHnd: Tensor,
    reduced_BHRc: Tensor,
    mixed_BHcK: Tensor,
    basis: PackedBasis,
    coefficients: int | float,
    keep: int | float,
    tokens_Bn: Tensor | None = None,
    tile_sums: Tensor | None = None,
) -> Tensor:
    """Attention of patches to the keys that they choose; the class token's is left to the caller.

    Args:
        q_BHnd, k_BHnd, v_BHnd: float32 queries, keys and values, the class token's first.
        reduced_BHRc, mixed_BHcK: what gives the logits of coefficients, of R = n - 1 patches.
        basis: of N tokens.
        coefficients: how many basis rows a query uses; below 1, those of coefficients above it.
        keep: keys of a query, of the largest weights, or tiles in blocks; below 1, those of weights
            above it.
        tokens_Bn: int64, which of the N tokens these are; all of them where None.
        tile_sums: (K, tiles), or (B, K, tiles), the basis summed over tiles of 16 patches, where
            tiles of queries choose tiles of keys.

    Returns:
        (B, n, H, d), of which row 0, the class token's, is not written.

    Raises:
        MemoryError: there is none left for a few queries of each thread.
    """
    library = _library()
    assert library is not None
    B, H, n, d = q_BHnd.shape
    K, N = basis.shape
    lanes, columns = int(library.sparsevit_lanes()), int(library.sparsevit_columns())
    q, k, v = (F.pad(x, (0, -d % lanes)).contiguous() for x in (q_BHnd, k_BHnd, v_BHnd))
    panels = F.pad(mixed_BHcK * LOG2_E, (0, -K % columns)).unflatten(-1, (-1, columns))
    panels = panels.transpose(2, 3).contiguous()
    reduced = reduced_BHRc.contiguous()
    present = None if tokens_Bn is None else tokens_Bn.contiguous()
    tiles = 0
    slices = None
    if tile_sums is not None:
        tiles = tile_sums.shape[-1]
        tile_sums = F.pad(tile_sums, (0, -tiles % lanes)).contiguous()
        slices = q.new_empty(B * H * tiles * 16 * q.shape[-1])
    out = q.new_empty(B, n, H, d)
    by_count, by_number = coefficients >= 1, keep >= 1
    problem = _Problem(
        *(B, H, n, q.shape[-1], d),
        d**-0.5 * LOG2_E,
        *(x.data_ptr() for x in (q, k, v)),
        *(reduced.shape[-1], K),
        *(x.data_ptr() for x in (reduced, panels)),
        *(int(coefficients) if by_count else 0, 0.0 if by_count else coefficients),
        *(int(keep) if by_number else 0, 0.0 if by_number else keep),
        N,
        *(x.data_ptr() for x in (basis.offsets, basis.entries)),
        None if present is None else present.data_ptr(),
        tiles,
        None if tile_sums is None else tile_sums.data_ptr(),
        0 if tile_sums is None or tile_sums.ndim == 2 else tile_sums.stride(0),
        None if slices is None else slices.data_ptr(),
        out.data_ptr(),
    )
    if library.sparsevit_sparse_attention(ctypes.byref(problem), torch.get_num_threads()):
        raise MemoryError("There is no memory for a few queries of each thread.")
    return out


@cache
def _library() -> ctypes.CDLL | None:
    library = build.load(Path(__file__).with_name("attention.cpp"))
    if library is not None:
        library.sparsevit_columns.restype = library.sparsevit_lanes.restype = c_int64
        library.sparsevit_sparse_attention.argtypes = [c_void_p, c_int64]
        library.sparsevit_sparse_attention.restype = c_int
    return library
