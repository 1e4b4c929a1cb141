"""Loading weights as data: nothing that is in a checkpoint file is ever run.

A ``.pth`` file is a pickle, and a pickle is a program. PyTorch can read one without running it
(``weights_only=True``), as long as it holds tensors and plain data. What mmengine's own checkpoints
hold beyond that (its log history, NumPy numbers) is allowed here by name; all else is refused.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pickle
import re
import socket
import zipfile
from argparse import Namespace
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sparsevit.errors import UserError, shortened
from sparsevit.limits import require_memory, size_text
from sparsevit.plain_files import expanded, open_file

MapLocation = Any

CONTAINERS = ("state_dict", "model", "model_state", "ema_state_dict", "state_dict_ema")
"""Where the weights are in a file, in the order of preference."""

_NUMPY_TYPES = "?bhilqBHILQefd"
_HEAD_BYTES = 512
_MOST_UNPACKED = 20
# A weight that repeats its numbers (expand) is larger by its shape than in the file.
_MOST_REPEATED = 1 << 26
_PATIENCE_SECONDS = 30.0
_LONGEST_MESSAGE = 1000
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
        UserError: the file is missing, empty, no checkpoint, damaged, holds more than data, or
            weights that are no plain tensors; or there is no memory for it.
    """
    source = expanded(path)
    _refuse_what_is_none(source)
    if source.suffix == ".safetensors":
        content: Any = _load_safetensors(source, map_location)
    else:
        try:
            with weights_only():
                content = torch.load(source, map_location=map_location, weights_only=True)
        except Exception as error:  # a damaged pickle raises almost anything
            raise _describe(source, error) from error
    _refuse_odd_weights(source, content)
    return content


def weights_in(content: Any) -> tuple[str | None, Mapping[Any, Any]]:
    """Where the weights of a loaded file are: the name of what holds them, None for all of it.

    Raises:
        TypeError: the file holds no mapping.
    """
    if not isinstance(content, Mapping):
        raise TypeError(f"a {type(content).__name__}")
    name = next((n for n in CONTAINERS if isinstance(content.get(n), Mapping)), None)
    return name, content[name] if name else content


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
        with _allowed_globals(), _short_errors():
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _short_errors() -> Iterator[None]:
    """PyTorch searches the message of what it refuses, in time that grows as the length squared:
    a name of 100,000 letters takes minutes."""
    unpickler = getattr(getattr(torch, "_weights_only_unpickler", None), "Unpickler", None)
    if unpickler is None:
        yield
        return
    load = unpickler.load

    def told(self: Any) -> Any:
        try:
            return load(self)
        except pickle.UnpicklingError as error:
            raise pickle.UnpicklingError(str(error)[:_LONGEST_MESSAGE]) from None

    unpickler.load = told
    try:
        yield
    finally:
        unpickler.load = load


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
    try:
        with open_file(source, "checkpoint") as file:
            head, size = file.read(_HEAD_BYTES), os.fstat(file.fileno()).st_size
    except UserError as error:
        beside = _inside(source if os.path.isdir(source) else source.parent)
        raise UserError(error.problem, f"{error.remedy} {beside}".strip()) from error
    except OSError as error:
        raise UserError(
            f"Checkpoint {source} cannot be read: {error.strerror or error}.",
            "Check the disk that it is on.",
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
    require_memory(size, f"Checkpoint {source}", _FETCH_AGAIN)
    _refuse_bomb(source, size)


def _refuse_bomb(source: Path, size: int) -> None:
    """PyTorch does not compress: what unpacks to many times its size is not its file."""
    try:
        with zipfile.ZipFile(source) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile):
        return  # no zip file, or a damaged one: PyTorch says so
    if unpacked > _MOST_UNPACKED * size:
        raise UserError(
            f"{source} unpacks to {size_text(unpacked)} from {size_text(size)}, which no file of "
            "PyTorch's does.",
            _FETCH_AGAIN,
        )


def _inside(folder: Path) -> str:
    try:
        found = list(folder.iterdir())
    except FileNotFoundError:
        return f"There is no folder {shortened(str(folder), 300)} either."
    except (OSError, ValueError):
        return ""
    names = sorted(p.name for p in found if p.suffix in (".pth", ".pt", ".safetensors"))
    if not names:
        return ""
    return f"{folder} has {', '.join(names[:5])}{' and more' if len(names) > 5 else ''}."


def _refuse_odd_weights(source: Path, content: Any) -> None:
    """Refuse weights that no model takes: it would fail on them, or fill the memory."""
    try:
        weights = weights_in(content)[1]
    except TypeError:
        return
    for name, value in weights.items():
        if not isinstance(value, torch.Tensor):
            continue
        if not isinstance(name, str):
            raise UserError(
                f"{source} names a weight by a value of type {type(name).__name__}, not by text.",
                "Save the weights by name: torch.save(model.state_dict(), ...).",
            )
        kind = _odd(value)
        if kind is not None:
            raise UserError(
                f"{source} has a weight that is no plain tensor: {shortened(name)} is {kind}.",
                "Save it as a dense tensor of real numbers.",
            )


def _odd(value: torch.Tensor) -> str | None:
    if value.is_nested:
        return "nested"
    if value.is_meta:
        return "on the meta device, without numbers"
    if value.is_quantized:
        return "quantised"
    if value.layout != torch.strided:
        return "sparse"
    if value.is_complex():
        return "complex"
    claimed = value.numel() * value.element_size()
    if claimed > max(_MOST_REPEATED, value.untyped_storage().nbytes()):
        return f"{size_text(claimed)} by its shape, and less is stored"
    return None


def _describe(source: Path, error: Exception) -> UserError:
    message = str(error)
    if isinstance(error, MemoryError) or re.search("(enough|allocate) memory|alloc", message):
        return UserError(
            f"{source} asks for more memory than there is ({_first_line(message)}).", _FETCH_AGAIN
        )
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
    reason = _first_line(met) or type(error).__name__
    return UserError(
        f"{source} is not a PyTorch checkpoint, or it is truncated or damaged ({reason}).",
        _FETCH_AGAIN,
    )


def _first_line(message: str) -> str:
    return shortened((message.splitlines() or [""])[0], 160)


def _load_safetensors(source: Path, map_location: MapLocation) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    device = map_location if isinstance(map_location, str) else "cpu"
    try:
        with safe_open(str(source), framework="pt", device=device) as file:
            state = OrderedDict((name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118
            meta = json.loads((file.metadata() or {}).get("meta", "{}"))
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{source} is not a safetensors file, or it is truncated or damaged "
            f"({_first_line(str(error))}).",
            _FETCH_AGAIN,
        ) from error
    except Exception as error:  # a type of numbers that this PyTorch has not, or no memory
        raise _describe(source, error) from error
    return {"state_dict": state, "meta": meta if isinstance(meta, dict) else {}}


# --- mmengine's routes ---------------------------------------------------------------------------


def load_from_local(filename: str, map_location: MapLocation = None) -> Any:
    content = load_file(filename, map_location)
    try:
        weights_in(content)
    except TypeError as error:
        raise no_weights(filename, error) from None
    return _without_code(content)


def no_weights(path: str | os.PathLike[str], what: object) -> UserError:
    """That a file holds no mapping but ``what``."""
    return UserError(
        f"{path} holds {what}, not a mapping from names to weights.",
        "Use a file written by torch.save(model.state_dict()), mmengine or mmdet.",
    )


load_from_local.runs_nothing = True  # type: ignore[attr-defined]


def _guarded(loader: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(loader)  # mmengine logs the loader's name
    def guarded(filename: str, *args: Any, **kwargs: Any) -> Any:
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(_PATIENCE_SECONDS)
        try:
            with weights_only():
                return _without_code(loader(filename, *args, **kwargs))
        except pickle.UnpicklingError as error:
            raise _describe(Path(filename), error) from error
        except UserError:
            raise
        except Exception as error:  # whatever the library raises that fetches
            address = re.sub(r"(?<=//)[^/@]*@|[?#].*", "", filename)
            raise UserError(
                f"The weights at {shortened(address, 200)} cannot be fetched "
                f"({_first_line(str(error)) or type(error).__name__}).",
                "Download them and give the path of the file in place of the address, or "
                "init_cfg=None to start from random weights.",
            ) from error
        finally:
            socket.setdefaulttimeout(before)

    guarded.runs_nothing = True  # type: ignore[attr-defined]
    return guarded


def _without_code(checkpoint: Any) -> Any:
    """Drop ``meta["config"]``: on resume mmengine would execute that text as a Python config."""
    meta = checkpoint.get("meta") if isinstance(checkpoint, dict) else None
    if isinstance(meta, dict):
        meta.pop("config", None)
    return checkpoint
