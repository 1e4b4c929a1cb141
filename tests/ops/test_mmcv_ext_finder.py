"""A program that does not know sparsevit finds mmcv's ops all the same."""

from __future__ import annotations

import subprocess
import sys
from importlib.machinery import PathFinder

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


def test_the_finder_stands_behind_the_one_for_files_and_answers_for_one_name_only():
    from sparsevit._mmcv_ext_finder import FINDER

    assert sys.meta_path.index(FINDER) > sys.meta_path.index(PathFinder)
    assert FINDER.find_spec("mmcv._ext") is not None
    assert FINDER.find_spec("mmcv.ops") is None


def test_an_mmcv_without_its_ops_is_told_apart_while_the_finder_is_there():
    done = run(
        "from sparsevit.ops import mmcv_ext; import sys; import mmcv, importlib.machinery as m; "
        "bare = m.PathFinder.find_spec('mmcv._ext', mmcv.__path__) is None; "
        "assert ('mmcv' in mmcv_ext.unavailable()) or not bare; "
        "assert not bare or mmcv_ext.install() != 'mmcv'"
    )
    assert done.returncode == 0, done.stderr
