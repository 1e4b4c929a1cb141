"""When are two runs' inputs the same: canonical JSON, and files by what is in them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import time
from collections.abc import Collection, Mapping
from enum import Enum
from typing import Any

from sparsevit.errors import UserError

PREFIX = "sha256:"
REFERENCE_KEYS = frozenset({"path", "sha256"})

# A file changed again within one tick of the clock keeps its time: young files are not cached.
_SETTLED_SECONDS = 2.0


def to_json(value: Any, where: str = "") -> Any:
    """``value`` in the types that JSON has, with nothing lost that a person would miss.

    Paths and enums become strings, tuples and sets lists, dataclasses dicts, scalars and arrays of
    numpy or torch numbers. NaN and infinities, which JSON has not, become ``"nan"`` and ``"inf"``.

    Raises:
        TypeError: something in it has no such form; the message says where it is.
    """
    if value is None or isinstance(value, (bool, str)):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, Enum):
        return to_json(value.value, where)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(key): to_json(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, (set, frozenset)):
        return sorted((to_json(item, where) for item in value), key=_canonical)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return to_json(fields, where)
    if callable(getattr(value, "tolist", None)):
        return to_json(value.tolist(), where)
    raise TypeError(
        f"{where.lstrip('.') or 'value'} is a {type(value).__name__}, which has no JSON form"
    )


def inputs_digest(inputs: Mapping[str, Any], ignore: Collection[str] = ()) -> str:
    """``sha256:...`` of a run's inputs. Equal for inputs that mean the same.

    The order of keys does not count, nor does 1 beside 1.0; of a file reference
    (``{"path": ..., "sha256": ...}``) only the content counts.

    Args:
        inputs: what a phase was given, by name.
        ignore: names that do not count.
    """
    counted = {key: value for key, value in to_json(inputs).items() if key not in ignore}
    return PREFIX + hashlib.sha256(_canonical(_identity(counted)).encode()).hexdigest()


def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The names of the inputs that differ in what they mean, in the order of ``new``."""
    before, after = _identity(to_json(old)), _identity(to_json(new))
    names = [*after, *(name for name in before if name not in after)]
    missing = object()
    return [
        name
        for name in names
        if _canonical_or(before, name, missing) != _canonical_or(after, name, missing)
    ]


def file_digest(path: str | os.PathLike[str]) -> str:
    """``sha256:...`` of a file's content.

    Raises:
        UserError: there is no such file, or it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise UserError(
            f"The file {os.fspath(path)} cannot be read: {error.strerror or error}.",
            "Check the path and its permissions.",
        ) from error
    return PREFIX + digest.hexdigest()


class DigestCache:
    """File digests by (path, size, mtime), so that a checkpoint of a gigabyte is read once.

    Args:
        entries: absolute path -> ``{"size", "mtime_ns", "sha256"}``, as the record keeps them.
    """

    def __init__(self, entries: Mapping[str, Any] | None = None) -> None:
        self._entries: dict[str, Any] = dict(entries or {})

    def digest(self, path: str | os.PathLike[str]) -> str:
        """As :func:`file_digest`."""
        key = os.path.abspath(path)
        try:
            stat = os.stat(key)
        except OSError:
            return file_digest(path)
        entry = self._entries.get(key)
        if isinstance(entry, dict) and _describes(entry, stat):
            return str(entry["sha256"])
        found = file_digest(path)
        if time.time() - stat.st_mtime > _SETTLED_SECONDS:
            self._entries[key] = {
                "size": stat.st_size,
                "mtime_ns": stat.st_mtime_ns,
                "sha256": found,
            }
        return found

    def merge_into(self, entries: Mapping[str, Any]) -> dict[str, Any]:
        """``entries`` and what was learnt since, without files that are gone or changed."""
        merged = {**entries, **self._entries}
        return {key: entry for key, entry in sorted(merged.items()) if _holds(key, entry)}


def _holds(key: str, entry: Any) -> bool:
    try:
        return isinstance(entry, dict) and _describes(entry, os.stat(key))
    except OSError:
        return False


def _describes(entry: Mapping[str, Any], stat: os.stat_result) -> bool:
    known = (entry.get("size"), entry.get("mtime_ns")) == (stat.st_size, stat.st_mtime_ns)
    return known and isinstance(entry.get("sha256"), str)


def _canonical(value: Any) -> str:
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


def _canonical_or(values: Mapping[str, Any], name: str, missing: object) -> object:
    return _canonical(values[name]) if name in values else missing


def _identity(value: Any) -> Any:
    """``value`` (JSON types) with what makes no difference taken out."""
    if isinstance(value, dict):
        if set(value) == REFERENCE_KEYS:
            return {"sha256": value["sha256"]}
        return {key: _identity(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_identity(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
