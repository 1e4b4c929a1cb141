"""timm and torchvision for the tests that need them, and for no other.

The registry's torchvision has its operators in an extension that is built against one build of
PyTorch. Beside another, such as the CPU build, it does not load, and importing torchvision ends
with "torchvision::nms does not exist". Swin needs none of these operators: it is enough to declare
them. Libraries that use torchvision where they find it would still fail, so it is installed in
a folder of its own (see the Makefile) and seen only where a test asks for it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
import torch

FOLDER = Path(sys.prefix) / "vision"
NAMES = ("timm", "torchvision")

# what torchvision describes on import, and so asks for
OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

_declared: list[torch.library.Library] = []
_hidden: dict[str, ModuleType] = {}


@contextmanager
def visible() -> Iterator[None]:
    """Within this context, timm and torchvision can be imported.

    They are imported once a process and come back as the same modules. Where they are not
    installed the test is skipped.
    """
    if not FOLDER.is_dir():
        pytest.skip(f"timm and torchvision are not in {FOLDER}: `make setup` puts them there")
    if not _declared:
        _declare_operators()
    sys.path.append(str(FOLDER))
    sys.modules.update(_hidden)
    try:
        for name in NAMES:
            importlib.import_module(name)
        yield
    finally:
        sys.path.remove(str(FOLDER))
        for name in [name for name in sys.modules if name.partition(".")[0] in NAMES]:
            _hidden[name] = sys.modules.pop(name)


def _declare_operators() -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")
    _declared.append(library)
    extension = next(iter((FOLDER / "torchvision").glob("_C*.so")), None)
    try:
        torch.ops.load_library(str(extension))
    except OSError:
        for schema in OPERATORS:
            library.define(schema)
