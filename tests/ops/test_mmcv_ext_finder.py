"""A program that does not know sparsevit finds mmcv's ops all the same."""

from __future__ import annotations

import subprocess
import sys

CHECK = """
import importlib.util, sys
import mmcv.ops
from mmcv.utils import ext_loader
ext = sys.modules["mmcv._ext"]
assert ext.__sparsevit_backend__ in ("torchvision", "pytorch"), ext
import torch
assert mmcv.ops.nms(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([1.0]), 0.5)[1].tolist() == [0]
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_mmcv_ops_import_without_a_word_of_sparsevit():
    done = run(CHECK)
    assert done.returncode == 0, done.stderr


def test_the_line_in_the_pth_file_registers_the_finder_and_imports_no_more():
    done = run(
        "import sys; assert 'sparsevit._mmcv_ext_finder' in sys.modules; "
        "assert not {'torch', 'mmcv', 'numpy', 'sparsevit.ops'} & set(sys.modules)"
    )
    assert done.returncode == 0, done.stderr


def test_a_compiled_module_is_not_hidden_by_the_finder():
    from sparsevit import _mmcv_ext_finder

    assert sys.meta_path[-1] is _mmcv_ext_finder.FINDER or _mmcv_ext_finder.FINDER in sys.meta_path
    with _mmcv_ext_finder.standing_aside():
        assert _mmcv_ext_finder.FINDER.find_spec("mmcv._ext") is None
    assert _mmcv_ext_finder.FINDER.find_spec("mmcv._ext") is not None
    assert _mmcv_ext_finder.FINDER.find_spec("mmcv.ops") is None
