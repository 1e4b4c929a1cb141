"""mmengine's view of this package: a scope in which what the libraries register is found.

A config that inherits from ``sparsevit::...`` has ``_scope_='sparsevit'`` in all that it inherits,
and mmengine then imports this module and looks the types up in registries of that scope. Ours are
empty: they ask those of the library whose scope is in force around ours, mmdet's or mmseg's. What
is sparse is registered there itself.
"""

from __future__ import annotations

import importlib
from typing import Any

import mmdet.registry
from mmengine.registry import DefaultScope, Registry

SCOPE = "sparsevit"


class _Below(Registry):
    """A registry that has nothing of its own.

    Args:
        variable: what the libraries call it, such as ``MODELS``.
        parent: mmdet's.
    """

    def __init__(self, variable: str, parent: Registry) -> None:
        # a registry imports its own locations when it is asked, not those of its parent
        super().__init__(parent.name, parent=parent, scope=SCOPE, locations=parent._locations)
        self._variable = variable

    def get(self, key: str) -> Any:
        library = importlib.import_module(f"{_library()}.registry")
        found: Registry | None = getattr(library, self._variable, None)
        return super().get(key) if found is None else found.get(key)


def _library() -> str:
    """The scope that was set last and is not ours; mmdet where there is none."""
    names = (one.scope_name for one in reversed(DefaultScope._instance_dict.values()))
    return next((name for name in names if name not in (SCOPE, "mmengine")), "mmdet")


REGISTRIES = {
    name: _Below(name, found)
    for name, found in sorted(vars(mmdet.registry).items())
    if isinstance(found, Registry) and found.scope == "mmdet"
}
