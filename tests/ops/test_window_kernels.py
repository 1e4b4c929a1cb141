"""The Triton kernels, in processes of their own: under the interpreter, through the compiler, and
on a GPU where there is one; and when they are used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmdet_backbones import small_swin

from sparsevit.errors import UserError
from sparsevit.models.kernel_block import fits, window_block_kernels_usable
from sparsevit.ops import window_kernels

HERE = Path(__file__).parent
needs_triton = pytest.mark.skipif(not window_kernels.installed(), reason="Triton is not installed")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


def run_file(name: str, interpret: bool) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    if interpret:
        environment["TRITON_INTERPRET"] = "1"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--no-header", str(HERE / name)],
        cwd=HERE.parents[1],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@needs_triton
def test_the_kernels_compute_what_pytorch_does_under_the_interpreter():
    run_file("window_kernel_cases.py", interpret=True)


@needs_triton
def test_the_kernels_build_for_gpus_of_two_generations():
    run_file("window_kernel_builds.py", interpret=False)


@needs_triton
@needs_cuda
def test_the_kernels_compute_what_pytorch_does_on_this_gpu():
    run_file("window_kernel_cases.py", interpret=False)


@needs_triton
@needs_cuda
def test_the_backbone_uses_them_on_this_gpu_in_half_precision():
    block = small_swin("SparseViT").cuda().half().stages[0].blocks[0]
    x = torch.zeros(49, 16, device="cuda", dtype=torch.float16)
    with torch.inference_mode():
        assert window_block_kernels_usable(block, x)
    assert not window_block_kernels_usable(block, x)


def test_on_a_cpu_pytorch_does_the_work():
    block = small_swin("SparseViT").half().stages[0].blocks[0]
    with torch.inference_mode():
        assert not window_block_kernels_usable(block, torch.zeros(49, 16, dtype=torch.float16))


@pytest.mark.parametrize(
    ("choice", "dtypes"),
    [
        (None, {torch.float16, torch.bfloat16}),
        ("auto", {torch.float16, torch.bfloat16}),
        ("all", {torch.float16, torch.bfloat16, torch.float32}),
        ("off", set()),
    ],
)
def test_the_variable_says_which_dtypes(monkeypatch, choice, dtypes):
    monkeypatch.delenv("SPARSEVIT_KERNELS", raising=False)
    if choice is not None:
        monkeypatch.setenv("SPARSEVIT_KERNELS", choice)
    known = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    assert {dtype for dtype in known if window_kernels.wanted(dtype)} == dtypes


def test_a_wrong_choice_names_the_right_ones(monkeypatch):
    monkeypatch.setenv("SPARSEVIT_KERNELS", "yes")
    with pytest.raises(UserError, match="SPARSEVIT_KERNELS=yes") as caught:
        window_kernels.wanted(torch.float16)
    assert "auto, all or off" in caught.value.remedy


def test_a_context_switches_them_off_and_on_again(monkeypatch):
    monkeypatch.setenv("SPARSEVIT_KERNELS", "auto")
    with window_kernels.without_kernels():
        assert not window_kernels.wanted(torch.float16)
    assert window_kernels.wanted(torch.float16)


def test_a_block_of_mmdet_fits():
    block = small_swin("SparseViT").stages[0].blocks[1]
    assert fits(block, torch.float32)
    assert not fits(block, torch.float16)


@pytest.mark.parametrize(
    "changed",
    [
        {"embed_dims": 8},
        {"window_size": 12},
        {"num_heads": [2, 4, 8, 16]},
        {"act_cfg": {"type": "ReLU"}},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_another_block_does_not_fit(changed):
    block = small_swin("SparseViT", **changed).stages[0].blocks[0]
    assert not fits(block, torch.float32)


def test_a_linear_of_somebody_else_does_not_fit():
    class Adapter(torch.nn.Linear):
        pass

    block = small_swin("SparseViT").stages[0].blocks[0]
    block.attn.w_msa.qkv = Adapter(16, 48)
    assert not fits(block, torch.float32)
