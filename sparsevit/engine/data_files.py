"""How mmengine reads files that are data: YAML without objects, pickles without calls.

mmengine's own readers run what a file says. They are replaced while a config is read, and for good
once something is built from one: a dataset's proposals and annotations may be such files too.
"""

from __future__ import annotations

import contextlib
import functools
import io
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import torch
import yaml
from mmengine.fileio.handlers import PickleHandler, YamlHandler
from mmengine.fileio.handlers.registry_utils import file_handlers

from sparsevit.errors import UserError

MAX_VALUES = 1_000_000
"""A YAML file that stands for more, its aliases followed, is refused."""


def read_files_as_data() -> None:
    """Make mmengine read YAML and pickles as data from now on."""
    file_handlers.update(_safe_handlers())


@contextlib.contextmanager
def reading_data() -> Iterator[None]:
    """Make mmengine read YAML and pickles as data meanwhile."""
    before = dict(file_handlers)
    try:
        read_files_as_data()
        yield
    finally:
        file_handlers.update(before)


def _safe_handlers() -> dict[str, Any]:
    of_yaml, of_pickle = _SafeYaml(), _SafePickle()
    return {"yaml": of_yaml, "yml": of_yaml, "pkl": of_pickle, "pickle": of_pickle}


# --- YAML ----------------------------------------------------------------------------------------


class _SafeLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML without objects, but with the tuples that mmengine writes."""


_SafeLoader.add_constructor(
    "tag:yaml.org,2002:python/tuple",
    lambda loader, node: tuple(loader.construct_sequence(node, deep=True)),
)


class _SafeYaml(YamlHandler):
    def load_from_fileobj(self, file: Any, **kwargs: Any) -> Any:
        found = yaml.load(file, Loader=_SafeLoader)
        _refuse_bombs(found)
        return found


def _refuse_bombs(content: Any) -> None:
    left, count = [content], 0
    while left:
        value = left.pop()
        items = value.values() if isinstance(value, dict) else value
        if isinstance(value, (dict, list, tuple)):
            count += len(value)
            left += items
        if count > MAX_VALUES:
            raise UserError(
                f"A YAML file stands for more than {MAX_VALUES:,} values, its aliases followed.",
                "Write out what is meant.",
            )


# --- pickles -------------------------------------------------------------------------------------


class _SafePickle(PickleHandler):
    def load_from_fileobj(self, file: Any, **kwargs: Any) -> Any:
        try:
            return _DataUnpickler(file).load()
        except UserError:
            raise
        except Exception as error:  # a damaged pickle raises almost anything
            raise UserError(
                f"A pickle that the config names cannot be read ({type(error).__name__}: {error}).",
                "Make the file again.",
            ) from error


class _DataUnpickler(pickle.Unpickler):
    """Reads arrays, tensors, plain data and mmengine's containers, and calls nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        # protocol 2, which mmengine writes, has the names of Python 2
        module = module.replace("__builtin__", "builtins")
        known = _known().get(f"{module}.{name}")
        if known is None:
            raise UserError(
                f"A pickle that the config names needs {module}.{name}, which is code, not data; "
                "none of it was run.",
                "Keep proposals and annotations in JSON, or pickle plain arrays and tensors only.",
            )
        return known


@functools.cache
def _known() -> dict[str, Callable[..., Any]]:
    from mmengine.structures import BaseDataElement, InstanceData, PixelData
    from torch import _utils

    from sparsevit.engine.safe_load import data_types

    allowed = [*data_types(), BaseDataElement, InstanceData, PixelData, torch.Size, torch.device]
    allowed += [_utils._rebuild_tensor_v2, _utils._rebuild_parameter]
    return {
        **{f"{each.__module__}.{each.__qualname__}": each for each in allowed},
        "torch.storage._load_from_bytes": _storage,
        "_codecs.encode": _latin_bytes,
    }


def _storage(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), weights_only=True)


def _latin_bytes(text: str, _encoding: str) -> bytes:
    return text.encode("latin-1")
