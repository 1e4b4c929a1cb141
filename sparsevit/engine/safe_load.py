"""Loading weights as data: nothing that is in a checkpoint file is ever run.

A ``.pth`` file is a pickle, and a pickle is a program. PyTorch can read one without running it
(``weights_only=True``), as long as it holds tensors and plain data. What mmengine's own checkpoints
hold beyond that (its log history, NumPy numbers) is allowed here by name; all else is refused.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import re
from argparse import Namespace
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sparsevit.errors import UserError

MapLocation = Any

_NUMPY_TYPES = "?bhilqBHILQefd"
_HEAD_BYTES = 512
_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_FORCE_NOT = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
_RESAVE = (
    "If you trust it, save its weights alone: torch.save({'state_dict': model.state_dict()}, ..."
)
_FETCH_AGAIN = "Download the file again, and compare its size or checksum with the source."


def load_file(path: str | os.PathLike[str], map_location: MapLocation = "cpu") -> Any:
    """What a checkpoint file holds, read without running any of it.

    Args:
        path: a file of ``torch.save`` (zip or legacy form), or one named ``*.safetensors``.
        map_location: as in :func:`torch.load`.

    Returns:
        The saved object; of a safetensors file, ``{"state_dict": ..., "meta": ...}``.

    Raises:
        UserError: the file is missing, empty, no checkpoint, damaged, or holds more than data.
    """
    source = Path(path).expanduser()
    _refuse_what_is_none(source)
    if source.suffix == ".safetensors":
        return _load_safetensors(source, map_location)
    try:
        with weights_only():
            return torch.load(source, map_location=map_location, weights_only=True)
    except Exception as error:  # a damaged pickle raises almost anything
        raise _describe(source, error) from error


def make_loading_safe() -> None:
    """Make mmengine's loading (``load_from``, ``resume``, ``init_cfg``, data files) run nothing.

    Local files go through :func:`load_file`; what is fetched from elsewhere keeps mmengine's route,
    with PyTorch made to read weights only. Does nothing where it is done already.
    """
    from mmengine.runner.checkpoint import CheckpointLoader

    from sparsevit.engine.data_files import read_files_as_data

    read_files_as_data()
    for prefix, loader in list(CheckpointLoader._schemes.items()):
        if getattr(loader, "runs_nothing", False):
            continue
        safe = load_from_local if prefix == "" else _guarded(loader)
        CheckpointLoader.register_scheme(prefixes=prefix, loader=safe, force=True)


@contextlib.contextmanager
def weights_only() -> Iterator[None]:
    """Within it, every :func:`torch.load` reads data only, whatever the caller asked for."""
    before = {name: os.environ.get(name) for name in (_FORCE, _FORCE_NOT)}
    os.environ[_FORCE] = "1"
    os.environ.pop(_FORCE_NOT, None)
    try:
        with _allowed_globals():
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


# --- what may be in a checkpoint -----------------------------------------------------------------


def _allowed_globals() -> contextlib.AbstractContextManager[None]:
    allowed = data_types()
    if hasattr(torch.serialization, "safe_globals"):
        return torch.serialization.safe_globals(allowed)
    torch.serialization.add_safe_globals(allowed)  # torch 2.4 has no context for it
    return contextlib.nullcontext()


@functools.cache
def data_types() -> list[Any]:
    """Containers, NumPy numbers and arrays, and mmengine's log history. None of them runs code."""
    from mmengine.config import ConfigDict
    from mmengine.logging import HistoryBuffer

    multiarray = (np._core if hasattr(np, "_core") else np.core).multiarray
    allowed = [HistoryBuffer, ConfigDict, OrderedDict, Counter, defaultdict, Namespace]
    allowed += [set, dict, list, np.ndarray, np.dtype]
    allowed += {type(np.dtype(kind)) for kind in _NUMPY_TYPES}
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        # NumPy 2 renamed the module that NumPy 1 wrote into files
        allowed += [
            _known_as(module, "_reconstruct", multiarray._reconstruct),
            _known_as(module, "scalar", multiarray.scalar),
        ]
    # a HistoryBuffer pickles its default statistics as getattr(HistoryBuffer, "mean")
    allowed.append(_known_as("builtins", "getattr", _statistic))
    return allowed


def _known_as(module: str, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` under the name that a file knows it by."""

    def alias(*args: Any) -> Any:
        return function(*args)

    alias.__module__, alias.__name__, alias.__qualname__ = module, name, name
    return alias


def _statistic(owner: Any, name: str) -> Any:
    from mmengine.logging import HistoryBuffer

    if owner is HistoryBuffer and name in ("min", "max", "mean", "current"):
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError("Unsupported global: GLOBAL builtins.getattr")


# --- what is no checkpoint -----------------------------------------------------------------------


def _refuse_what_is_none(source: Path) -> None:
    if not source.exists():
        raise UserError(f"There is no checkpoint {source}.", _nearest_files(source))
    if source.is_dir():
        raise UserError(
            f"{source} is a folder, not a checkpoint.",
            f"Give the path of a file in it. {_inside(source)}",
        )
    try:
        with source.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise UserError(
            f"Checkpoint {source} cannot be read: {error.strerror or error}.",
            "Check its permissions.",
        ) from error
    if not head:
        raise UserError(f"Checkpoint {source} is empty.", _FETCH_AGAIN)
    if head.startswith(b"version https://git-lfs"):
        raise UserError(
            f"{source} is a Git LFS pointer: a placeholder for a file that was not downloaded.",
            "Download the file with `git lfs pull`.",
        )
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise UserError(
            f"{source} is a web page saved under the name of a checkpoint.",
            "Open the link in a browser: the download may need a login or a confirmation.",
        )


def _nearest_files(source: Path) -> str:
    folder = source.parent
    if not folder.is_dir():
        return f"There is no folder {folder} either: check the path."
    return _inside(folder) or "Check the path."


def _inside(folder: Path) -> str:
    names = sorted(p.name for p in folder.iterdir() if p.suffix in (".pth", ".pt", ".safetensors"))
    if not names:
        return ""
    return f"{folder} has {', '.join(names[:5])}{' and more' if len(names) > 5 else ''}."


def _describe(source: Path, error: Exception) -> UserError:
    message = str(error)
    found = re.search(r"GLOBAL (\S+)|but got <class '([\w.]+)'>", message)
    asked = found and (found[1] or found[2])
    if asked and asked.startswith("torch.nn.modules"):
        return UserError(f"{source} contains a whole model object, not its weights.", _RESAVE)
    if asked:
        return UserError(
            f"{source} needs {asked}, which is code, not weights; none of it was run.",
            _RESAVE,
        )
    if "TorchScript" in message or "torch.jit" in message:
        return UserError(f"{source} is a TorchScript program, not weights.", _RESAVE)
    # torch puts a page of advice around what it met
    met = message.partition("WeightsUnpickler error:")[2].strip() or message.strip()
    reason = met.splitlines()[0][:160] if met else type(error).__name__
    return UserError(
        f"{source} is not a PyTorch checkpoint, or it is truncated or damaged ({reason}).",
        _FETCH_AGAIN,
    )


def _load_safetensors(source: Path, map_location: MapLocation) -> dict[str, Any]:
    import json

    from safetensors import SafetensorError, safe_open

    device = map_location if isinstance(map_location, str) else "cpu"
    try:
        with safe_open(str(source), framework="pt", device=device) as file:
            state = OrderedDict((name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118
            meta = json.loads((file.metadata() or {}).get("meta", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{source} is not a safetensors file, or it is truncated or damaged ({error}).",
            _FETCH_AGAIN,
        ) from error
    return {"state_dict": state, "meta": meta if isinstance(meta, dict) else {}}


# --- mmengine's routes ---------------------------------------------------------------------------


def load_from_local(filename: str, map_location: MapLocation = None) -> Any:
    return _without_code(load_file(filename, map_location))


load_from_local.runs_nothing = True  # type: ignore[attr-defined]


def _guarded(loader: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(loader)  # mmengine logs the loader's name
    def guarded(filename: str, *args: Any, **kwargs: Any) -> Any:
        try:
            with weights_only():
                return _without_code(loader(filename, *args, **kwargs))
        except pickle.UnpicklingError as error:
            raise _describe(Path(filename), error) from error

    guarded.runs_nothing = True  # type: ignore[attr-defined]
    return guarded


def _without_code(checkpoint: Any) -> Any:
    """Drop ``meta["config"]``: on resume mmengine would execute that text as a Python config."""
    meta = checkpoint.get("meta") if isinstance(checkpoint, dict) else None
    if isinstance(meta, dict):
        meta.pop("config", None)
    return checkpoint
