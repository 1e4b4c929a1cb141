"""The kinds of hostile input, by name. A kind is a module with ``catalogue`` and ``mutation``."""

from __future__ import annotations

import functools
import importlib

from hostile.case import Kind

KINDS = (
    *("checkpoint", "configuration", "config", "set", "dataset", "workspace", "study", "option"),
    "environment",
)


@functools.cache
def kind_of(name: str) -> Kind:
    return Kind.of(name, importlib.import_module(f"hostile.kinds.{name}"))
