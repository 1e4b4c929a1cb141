"""The Triton kernels through the whole compiler, for GPUs that need not be there. Not collected by
itself: test_window_kernels.py runs it in a process of its own, where Triton does not interpret."""

from __future__ import annotations

import pytest
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sparsevit.ops.window_kernels import kernels
from sparsevit.ops.window_kernels.launch import TILES

CAPABILITIES = [80, 90]
# what a program may use on GPUs for the desktop (8.6, 8.9, 12.0), in bytes; the others have more
SHARED_MEMORY = 99 * 1024
WINDOW = {"N": 49, "WINDOW": 7, "SHIFT": 3, "PRECISION": "ieee", "BLOCK_N": 64}


def build(kernel, types, constants, capability, warps=4, stages=3):
    """Compile as a launch would; ``types`` are those of the arguments that are no constants."""
    names = [name for name in kernel.arg_names if name not in constants]
    signature = dict(zip(names, types, strict=True)) | dict.fromkeys(constants, "constexpr")
    # what a launch finds out by itself: PyTorch's memory is aligned
    aligned = {
        (kernel.arg_names.index(name),): [["tt.divisibility", 16]]
        for name, kind in zip(names, types, strict=True)
        if kind.startswith("*")
    }
    source = ASTSource(kernel, signature, constants, aligned)
    target = GPUTarget("cuda", capability, 32)
    return triton.compile(source, target, {"num_warps": warps, "num_stages": stages})


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
def test_gather_norm_linear_builds_with_a_tile_that_fits(dtype, capability):
    x = f"*{dtype}"
    types = [x, "*i64", "*u8", x, x, x, x, x, "i32", "i32", "fp32"]
    rows, features, warps, stages = TILES[0]
    constants = {
        "C": 96,
        "HAS_PADDING": True,
        "PAD_BEFORE_NORM": False,
        "HAS_BIAS": True,
        "GELU": True,
        "PRECISION": "ieee",
        "BLOCK_R": rows,
        "BLOCK_F": features,
        "BLOCK_C": 32,
    }
    built = build(kernels.gather_norm_linear, types, constants, capability, warps, stages)
    assert built.metadata.shared <= SHARED_MEMORY
    assert "mma" in built.asm["ptx"] or dtype == "fp32"


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
def test_window_attention_builds_and_fits(dtype, capability):
    x = f"*{dtype}"
    constants = {**WINDOW, "H": 6, "D": 32}
    built = build(
        kernels.window_attention,
        [x, x, "*i64", x, "fp32"],
        constants,
        capability,
        8 if dtype == "fp32" else 4,
    )
    assert built.metadata.shared <= SHARED_MEMORY
    assert "mma" in built.asm["ptx"] or dtype == "fp32"


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_window_attention_to_map_builds_and_fits(dtype, capability):
    x = f"*{dtype}"
    constants = {
        **WINDOW,
        "H": 3,
        "D": 32,
        "HAS_PADDING": True,
        "HAS_BIAS": True,
        "BLOCK_C": 128,
    }
    types = [x, "*i64", "*u8", x, x, "*i64", x, x, "fp32"]
    built = build(kernels.window_attention_to_map, types, constants, capability, stages=2)
    assert built.metadata.shared <= SHARED_MEMORY


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_add_rows_builds(capability):
    constants = {"C": 96, "HAS_PADDING": True, "BLOCK_R": 32, "BLOCK_C": 128}
    built = build(kernels.add_rows, ["*fp16", "*i64", "*u8", "*fp16", "i32"], constants, capability)
    assert "st.global" in built.asm["ptx"]
