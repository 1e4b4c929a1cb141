"""Mistakes in a config that come to light when something is built from it, or when that runs.

Frameworks raise whatever their code stumbles over. Which part of the config is to blame can be read
from the traceback: its frames hold the objects that were at work, and what they were built from.
"""

from __future__ import annotations

import errno
import inspect
import re
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import mmengine
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import nn

import sparsevit
from sparsevit.engine.config_check import nearest
from sparsevit.engine.overrides import given_overrides
from sparsevit.errors import UserError, shortened

_PACKAGE = Path(sparsevit.__file__).parent
_STANDARD = Path(sysconfig.get_path("stdlib"))
# What is at work for everybody, and is to blame for nothing.
_NEUTRAL = (Path(torch.__file__).parent, Path(mmengine.__file__).parent / "registry")
# Our code that stands in a model, where the config's values reach it.
_IN_MODELS = tuple(_PACKAGE / name for name in ("models", "methods", "tasks"))
_LIKE_MMCV = _PACKAGE / "ops"

_NO_SUCH_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)
_BUILT = ("model", "train_cfg", "val_cfg", "test_cfg", "optim_wrapper", "param_scheduler")
_BUILT_TOO = ("default_hooks", "custom_hooks", "log_processor", "visualizer")
_SPLITS = ("train", "val", "test")
# Methods of mmengine's Runner, and what they work on.
_METHODS = {
    "setup_env": "env_cfg",
    "set_randomness": "randomness",
    "build_logger": "log_level",
    "build_visualizer": "visualizer",
    "build_log_processor": "log_processor",
    "build_optim_wrapper": "optim_wrapper",
    "scale_lr": "auto_scale_lr",
    "_check_scheduler_cfg": "param_scheduler",
    "build_param_scheduler": "param_scheduler",
    "build_train_loop": "train_cfg",
    "build_val_loop": "val_cfg",
    "register_default_hooks": "default_hooks",
    "register_custom_hooks": "custom_hooks",
    "wrap_model": "model_wrapper_cfg",
}
_UNEXPECTED = re.compile(r"unexpected keyword argument '(\w+)'")
_WORKER = re.compile(r"Caught \w+ in DataLoader worker process \d+\.\n")
_WORKER_FRAME = re.compile(r'^\s*File "(.+)", line (\d+), in \w+$', re.MULTILINE)
_LINES, _WIDTH = 10, 300


@contextmanager
def config_mistakes(cfg: Config, what: str, split: str = "train") -> Iterator[None]:
    """Tell the user which part of a config failed, rather than where in a framework.

    What is raised by the frameworks, or by what they built from the config, is the config's; what
    is raised by the package itself stays as it is.

    Args:
        cfg: what is built, or was built from.
        what: is being built or run, such as ``The training``.
        split: whose data is used: ``train``, ``val`` or ``test``.

    Raises:
        UserError: instead of what is raised inside: the key, and the framework's own words.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        mistake = mistake_in(error, cfg, what, split)
        if mistake is None:
            raise
        raise mistake from error


def overridden_mistake(error: BaseException) -> UserError | None:
    """The mistake in what was given with ``--set`` that led to an error, wherever it was raised.

    Only where the part that failed is one whose values were overridden.
    """
    for frame, _ in reversed(_frames(error)):
        for value in list(frame.f_locals.values()):
            cfg = value if isinstance(value, Config) else getattr(value, "cfg", None)
            if isinstance(cfg, Config) and given_overrides(cfg):
                blamed = _blamed(error, cfg, "val")
                top = blamed.key.partition(".")[0] if blamed is not None else "model"
                tops = {re.split("[.=]", given)[0] for given in given_overrides(cfg)}
                return mistake_in(error, cfg, "The command", "val") if top in tops else None
    return None


def mistake_in(error: BaseException, cfg: Config, what: str, split: str) -> UserError | None:
    """What an error means to the user; None where it is none of the config's."""
    if isinstance(error, OSError):
        return _missing_file(error, cfg) if error.errno in _NO_SUCH_FILE else None
    blamed = _blamed(error, cfg, split)
    source = _source(error)
    touched = any(given.startswith("model") for given in given_overrides(cfg))
    if source == "package" or (source == "model" and not touched):
        return None
    if source == "model" and blamed is None:
        blamed = _Blamed("model", building=False)
    if source is None and blamed is None:
        return None
    words = _words(error)
    if _is_out_of_memory(error):
        return UserError(
            f"{what} of the config needs more memory than there is.\n{words}",
            f"Lower {split}_dataloader.batch_size, or the sizes in the config.",
        )
    related = _related(cfg, blamed.key if blamed is not None else "")
    given = f", with {' '.join(related)}" if related else ""
    if blamed is None:
        problem = f"{what} of the config failed{given}.\n{words}"
    else:
        failed = "cannot be built" if blamed.building else "failed"
        problem = f"{blamed.key} of the config {failed}{given}.\n{words}"
    return UserError(problem, _remedy(error, cfg, blamed, related))


# --- which part ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Blamed:
    key: str
    building: bool
    built: Any = None


def _frames(error: BaseException) -> list[tuple[FrameType, int]]:
    """The frames of an error and of those that led to it, the innermost first."""
    found: list[tuple[FrameType, int]] = []
    seen: BaseException | None = error
    for _ in range(5):
        if seen is None:
            break
        found += reversed(list(traceback.walk_tb(seen.__traceback__)))
        seen = seen.__cause__ or seen.__context__
    return found


def _blamed(error: BaseException, cfg: Config, split: str) -> _Blamed | None:
    frames = _frames(error)
    parts = _typed(cfg, split)
    lines = _WORKER_FRAME.findall(str(error)) if _WORKER.search(str(error)) else []
    for file, line in reversed(lines):
        key = _by_line(file, int(line), parts)
        if key is not None:
            return _Blamed(key, building=False)
    vague: str | None = None
    building = any(frame.f_code.co_name == "build_from_cfg" for frame, _ in frames)
    for frame, _ in frames:
        name, values = frame.f_code.co_name, frame.f_locals
        if name == "build_from_cfg" and "registry" in values:
            key = _by_content(values.get("cfg"), parts)
            if key is not None:
                return _Blamed(key, True, values.get("obj_cls"))
        runner = values.get("self")
        if name == "build_dataloader":
            return _Blamed(_dataloader(cfg, values.get("dataloader"), split), building=True)
        if isinstance(runner, Runner) and name in _METHODS:
            return _Blamed(_METHODS[name], building=True)
        if name == "build_evaluator" or (
            name == "__init__" and type(runner).__name__ == "Evaluator"
        ):
            return _Blamed("val_evaluator" if split != "test" else "test_evaluator", building=True)
        if runner is None or isinstance(runner, Runner):
            continue
        keys = _by_type(type(runner).__name__, parts)
        if len(keys) > 1 and isinstance(runner, nn.Module):
            keys = _by_place(runner, frames, cfg) or keys
        if len(keys) == 1:
            return _Blamed(keys[0], building, type(runner))
        if keys and vague is None:
            vague = _common(keys)
        if "DataLoaderIter" in type(runner).__name__ and vague is None:
            vague = f"{split}_dataloader"
    return _Blamed(vague, building) if vague else None


def _typed(cfg: Config, split: str) -> list[tuple[str, dict[str, Any]]]:
    """Everything of a config that has a ``type``, what belongs to the split first."""
    splits = (split, *(one for one in _SPLITS if one != split))
    data = [f"{one}_{part}" for one in splits for part in ("dataloader", "evaluator")]
    return [
        found for name in (*_BUILT, *_BUILT_TOO, *data) for found in _below(cfg.get(name), name)
    ]


def _below(node: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        # the innermost first: what is equal is rather a part than what it is a part of
        for key, child in node.items():
            yield from _below(child, f"{where}.{key}")
        if "type" in node:
            yield where, node
    elif isinstance(node, (list, tuple)):
        for number, child in enumerate(node):
            yield from _below(child, f"{where}.{number}")


def _by_content(built: Any, parts: list[tuple[str, dict[str, Any]]]) -> str | None:
    """The key of what was built: the same, or with more that its parent added."""
    if not isinstance(built, (dict, Config)):
        return None
    for key, part in parts:
        if part is built or dict(part) == dict(built):
            return key
    for key, part in parts:
        if part["type"] == built.get("type") and all(
            name in built and built[name] == value for name, value in part.items()
        ):
            return key
    keys = _by_type(_name(built.get("type")), parts)
    return keys[0] if keys else None


def _by_type(name: str, parts: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """Keys of what has a type, only those of the first split that has any."""
    keys = [key for key, part in parts if _name(part["type"]) == name]
    tops = [key.partition(".")[0] for key in keys]
    return [key for key, top in zip(keys, tops, strict=True) if top == tops[0]]


def _by_place(module: nn.Module, frames: list[tuple[FrameType, int]], cfg: Config) -> list[str]:
    """The key of a module from where it stands in the model."""
    models = [frame.f_locals.get("self") for frame, _ in frames]
    whole = next((one for one in reversed(models) if isinstance(one, nn.Module)), module)
    path = next((name for name, one in whole.named_modules() if one is module), "")
    key, node = "model", cfg.get("model")
    if _name((node or {}).get("type")) != type(whole).__name__:
        return []
    for part in path.split("."):
        if isinstance(node, dict) and part in node:
            node = node[part]
        elif isinstance(node, (list, tuple)) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        else:
            break
        key = f"{key}.{part}"
    return [key]


def _by_line(file: str, line: int, parts: list[tuple[str, dict[str, Any]]]) -> str | None:
    """The key of the transform that has this line, from the text of a worker's traceback."""
    from mmengine.registry import TRANSFORMS

    with TRANSFORMS.switch_scope_and_registry(None) as registry:
        transforms = [
            (key, registry.get(part["type"]) if isinstance(part["type"], str) else part["type"])
            for key, part in parts
            if ".pipeline." in key
        ]
    for key, built in transforms:
        for base in inspect.getmro(built) if inspect.isclass(built) else ():
            for function in vars(base).values():
                code = getattr(inspect.unwrap(function), "__code__", None)
                if code is not None and code.co_filename == file:
                    last = max((one for _, _, one in code.co_lines() if one), default=0)
                    if code.co_firstlineno <= line <= last:
                        return key
    return None


def _dataloader(cfg: Config, built: Any, split: str) -> str:
    names = (f"{one}_dataloader" for one in _SPLITS)
    return next((name for name in names if cfg.get(name) == built), f"{split}_dataloader")


def _common(keys: list[str]) -> str:
    split = [key.split(".") for key in keys]
    same = []
    for parts in zip(*split, strict=False):
        if len(set(parts)) > 1:
            break
        same.append(parts[0])
    return ".".join(same)


def _name(kind: Any) -> str:
    return kind.rpartition(".")[2] if isinstance(kind, str) else getattr(kind, "__name__", "")


# --- whose it is ---------------------------------------------------------------------------------


def _source(error: BaseException) -> str | None:
    """Whose code raised: a ``framework``, the ``model`` code of the package, or the ``package``.

    torch and the standard library raise what they are called with, so their caller counts. What is
    called while a registry builds something from the config counts as the framework's.
    """
    if _WORKER.search(str(error)):
        files = [Path(file) for file, _ in _WORKER_FRAME.findall(str(error))]
        names = [""] * len(files)
    else:
        walked = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        files = [Path(frame.f_code.co_filename) for frame in walked]
        names = [frame.f_code.co_name for frame in walked]
    in_model = False
    for file, name in zip(reversed(files), reversed(names), strict=True):
        if name == "build_from_cfg":
            return "framework"
        if _is_within(file, *_IN_MODELS):
            in_model = True
        elif _is_within(file, _PACKAGE) and not _is_within(file, _LIKE_MMCV):
            return "model" if in_model else "package"
        elif _is_within(file, _PACKAGE) or not (
            _is_within(file, *_NEUTRAL)
            or (_is_within(file, _STANDARD) and "site-packages" not in file.parts)
            or file.name.startswith("<")
        ):
            return "model" if in_model else "framework"
    return None


def _is_within(file: Path, *folders: Path) -> bool:
    return any(folder in file.parents for folder in folders)


# --- words ---------------------------------------------------------------------------------------


def _words(error: BaseException) -> str:
    """Type and message of an error, shortened to fit into a screen."""
    text = str(error)
    if _WORKER.search(text):
        # the last paragraph of the worker's traceback is what was raised
        said = (
            text[[*_WORKER_FRAME.finditer(text)][-1].end() :]
            if _WORKER_FRAME.search(text)
            else text
        )
        lines = [line for line in said.splitlines() if line and not line.startswith(" ")]
        place = ""
    else:
        lines = f"{type(error).__name__}: {text}".splitlines()
        place = _place(error)
    kept = [shortened(" ".join(line.split()), _WIDTH) for line in lines[:_LINES] if line.strip()]
    more = ["..."] if len(lines) > _LINES else []
    return "\n".join([*kept, *more]) + place


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return ""
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"


def _is_out_of_memory(error: BaseException) -> bool:
    text = str(error)
    return isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and ("can't allocate memory" in text)
    )


def _related(cfg: Config, key: str) -> list[str]:
    """What was given with ``--set`` for a part of a config, or for what it is a part of."""
    found = []
    for given in given_overrides(cfg):
        name = given.partition("=")[0].strip()
        if key and (f"{name}.".startswith(f"{key}.") or f"{key}.".startswith(f"{name}.")):
            found.append(f"--set {shortened(given)}")
    return found[:4]


def _remedy(error: BaseException, cfg: Config, blamed: _Blamed | None, related: list[str]) -> str:
    unexpected = _UNEXPECTED.search(str(error))
    if unexpected and blamed is not None and inspect.isclass(blamed.built):
        known = [name for one in inspect.getmro(blamed.built) for name in _arguments(one)]
        return nearest(unexpected[1], tuple(dict.fromkeys(known)))
    if related:
        return "Correct the value."
    where = f"Check {blamed.key} in the config" if blamed is not None else "Check the config"
    others = [f"--set {shortened(given)}" for given in given_overrides(cfg)][:4]
    return f"{where}, and {' '.join(others)}." if others else f"{where}."


def _arguments(one: type) -> list[str]:
    try:
        parameters = inspect.signature(one.__init__).parameters.values()  # type: ignore[misc]
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)][1:]


def _missing_file(error: OSError, cfg: Config) -> UserError:
    name = str(error.filename or error)
    key = next(
        (key for key, value in _texts(cfg, "") if len(value) > 3 and name.endswith(value)), None
    )
    said = f" ({key})" if key else ""
    reason = "is missing" if error.errno == errno.ENOENT else f"cannot be read ({error.strerror})"
    return UserError(
        f"A file that the config names{said} {reason}: {shortened(name, 300)}.",
        "Correct the path in the config, or override it with --set.",
    )


def _texts(node: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, (dict, Config)):
        for key, value in node.items():
            yield from _texts(value, f"{where}.{key}" if where else str(key))
    elif isinstance(node, (list, tuple)):
        for number, value in enumerate(node):
            yield from _texts(value, f"{where}.{number}")
    elif isinstance(node, str):
        yield where, node
