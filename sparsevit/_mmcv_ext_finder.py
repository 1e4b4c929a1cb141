"""Lets any program of this environment import ``mmcv._ext``, whether or not it knows sparsevit.

mmdet's own ``tools/test.py`` imports mmcv's ops before it reads the config that would import
``sparsevit.models``. So ``sparsevit_mmcv_ext.pth``, which is installed beside the package, imports
this module when Python starts. It must stay as small as it is: it is paid for at every start.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

NAME = "mmcv._ext"


class ExtFinder(MetaPathFinder, Loader):
    """Stands last in line: asked only where mmcv came without its compiled ops."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != NAME:
            return None
        return ModuleSpec(NAME, self, origin="sparsevit.ops.mmcv_ext")

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        from sparsevit.ops import mmcv_ext

        mmcv_ext.install()
        return sys.modules[NAME]

    def exec_module(self, module: ModuleType) -> None:
        """The module was complete when it was made."""


FINDER = ExtFinder()


def register() -> None:
    """Put the finder last in line, once."""
    if FINDER not in sys.meta_path:
        sys.meta_path.append(FINDER)


register()
