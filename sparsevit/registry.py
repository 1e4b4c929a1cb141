"""mmengine's view of this package: a scope in which whatever mmdet registers is found.

A config that inherits from ``sparsevit::...`` has ``_scope_='sparsevit'`` in all that it inherits,
and mmengine then imports this module and looks the types up in registries of that scope. Ours are
empty and lie below mmdet's: what is sparse is registered in mmdet itself.
"""

from __future__ import annotations

import mmdet.registry
from mmengine.registry import Registry

SCOPE = "sparsevit"


def _below(parent: Registry) -> Registry:
    # a registry imports its own locations when it is asked, not those of its parent
    return Registry(parent.name, parent=parent, scope=SCOPE, locations=parent._locations)


REGISTRIES = {
    name: _below(found)
    for name, found in sorted(vars(mmdet.registry).items())
    if isinstance(found, Registry) and found.scope == "mmdet"
}
