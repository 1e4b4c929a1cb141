"""benchmarks/gpu.py: it runs on torch alone, and its plain Swin is mmdet's."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmdet_backbones import small_swin

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPT = BENCHMARKS / "gpu.py"
# as on an image that holds PyTorch and nothing of this ecosystem
BARE = """
import runpy, sys
for name in ("mmdet", "mmengine", "mmcv", "yaml", "optuna", "rich", "typer"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
sys.path.insert(0, {folder!r})
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_bare(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    code = BARE.format(folder=str(BENCHMARKS))
    return subprocess.run(
        [sys.executable, "-c", code, str(SCRIPT), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so_and_is_no_failure(tmp_path):
    done = run_bare(cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "no CUDA device" in done.stdout
    assert not list(tmp_path.iterdir())


def test_it_compares_and_times_every_route_on_torch_alone(tmp_path):
    output = tmp_path / "gpu.json"
    arguments = ["--smoke", "--compile-mode", "none", "--batch-size", "2", "--dtype", "fp32"]
    done = run_bare(*arguments, "--output", str(output), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(output.read_text())
    assert result["smoke"] is True
    assert result["peer"] == "Swin, plain (mmdet's algorithm)"
    (case,) = result["cases"]
    configurations = {"dense", "cfg1", "cfg2", "cfg3", "60%"}
    for route in ("paper's algorithm", "ours, eager", "ours, eager + CUDA graph"):
        assert {f"{route}, {config}" for config in configurations} <= set(case["results"])
    assert all(row["samples_ms"] for row in case["results"].values())
    assert all(row["gemm_floor_ms"] > 0 for row in case["results"].values())
    assert max(found["most"] for found in case["agreement"].values()) < 1e-3


@pytest.fixture
def plain_swin(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("shared.plain_swin")
    for name in [name for name in sys.modules if name.partition(".")[0] == "shared"]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize("hw", [(56, 112), (60, 90)])
def test_the_plain_swin_is_that_of_mmdet(plain_swin, hw):
    torch.manual_seed(0)
    theirs = small_swin("SwinTransformer")
    plain = plain_swin.SwinTransformer(
        embed_dims=16, depths=[2, 2, 2, 2], num_heads=[1, 2, 4, 8]
    ).eval()
    plain.load_state_dict(theirs.state_dict(), strict=True)
    images = torch.randn(2, 3, *hw)
    with torch.inference_mode():
        for ours, expected in zip(plain(images), theirs(images), strict=True):
            assert torch.allclose(ours, expected, atol=1e-5)
