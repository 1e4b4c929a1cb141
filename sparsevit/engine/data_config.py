"""YAML and JSON configs as data: what they may say, so that nothing in them runs.

A ``type`` in a config is looked up in the frameworks' registries, and mmengine imports what it does
not find there, as a dotted path: ``type: os.system`` in a file would be a program. So a config of
these formats names what is registered, inherits from its like or from a config that is installed,
and imports modules of the frameworks only.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import re
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine import registry
from mmengine.config import Config
from mmengine.config import config as mmengine_config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.registry import Registry
from mmengine.utils import import_modules_from_strings

from sparsevit.engine.config_names import configs_folder
from sparsevit.engine.data_files import reading_data
from sparsevit.engine.quiet import quiet_libraries
from sparsevit.errors import UserError
from sparsevit.tasks import import_library

SUFFIXES = (".yaml", ".yml", ".json")
MAX_BYTES = 4 * 2**20
"""A larger file is no config."""

_SCOPES = frozenset({"mmengine", "mmcv", "sparsevit", *MODULE2PACKAGE})
_SCOPE_KEYS = ("_scope_", "default_scope")
# Parts of mmcv and mmdet that are chosen by `type` and not by a registry: NMS, the paths of an FPG,
# and the handlers of a profiler. RoI layers are looked up in mmcv.ops.
_CHOSEN = frozenset(
    {"nms", "soft_nms", "nms_match", "nms_rotated", "nms_quadri", "log_trace", "tb_trace"}
    | {"conv", "interpolation_conv", "last_conv"}
)
# Arguments by which the frameworks run or import what they are given.
_RUN = {
    "sys_path": "is added to the path of modules",
    "warp_mode": "is evaluated as Python",
    "trust_remote_code": "lets a model bring its own code",
    "hierarchy_file": "is unpickled",
    **dict.fromkeys(("tag_list", "tag_list_chinese"), "is unpickled"),
}
# A number format is evaluated too, by mmpretrain, as what follows "torch.".
_FORMAT_KEY, _FORMAT = "dtype", re.compile(r"\w+(\.\w+)?")
# Registries of a library that are no children of mmengine's.
_APART = ("BATCH_AUGMENTS",)
_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_FILES = re.compile(
    r"(?i).*\.(json|txt|ya?ml|png|jpe?g|bmp|tiff?|pth?|pkl|pickle|csv|xml|np[yz]|log|gz|tar|zip|h5)"
)
_REMEDY = (
    "Use a registered name. If the config needs code of your own, write it as a .py config, which "
    "is a program."
)


def is_data(path: str | os.PathLike[str] | None) -> bool:
    """Whether a config file is of a format that is data."""
    return path is not None and Path(path).suffix in SUFFIXES


def read_config(path: Path) -> Config:
    """What mmengine makes of a config file, with the modules it asks for imported.

    A file that is data is read as such, also where a program inherits from it.

    Raises:
        UserError: a YAML or JSON file says what only a program may.
        Exception: whatever a ``.py`` config raises, or mmengine.
    """
    with reading_data(), _inheriting_from_data_only(), _found_by_name():
        cfg = Config.fromfile(path, import_custom_modules=not is_data(path))
    # mmengine puts the config in every checkpoint and log, and yapf takes long to lay it out
    object.__setattr__(cfg, "_format_python_code", False)
    if is_data(path):
        refuse_code(cfg)
    return cfg


def refuse_code(cfg: Config) -> None:
    """Refuse what is no data in a config that was read from YAML or JSON, and import its modules.

    Raises:
        UserError: naming the key, and what it would run.
        ImportError: a module of a framework cannot be imported.
    """
    content = cfg.to_dict()
    name = Path(cfg.filename).name if cfg.filename else "The config"
    _refuse_paths(content, name)
    imports = content.get("custom_imports")
    if imports:
        import_modules_from_strings(**imports)
    _refuse_unregistered(content, name)


def refuse_code_in(key: str, value: Any, cfg: Config) -> None:
    """Refuse a path to code in a value that ``--set`` gives: mmengine would import it.

    A ``.py`` config is a program, what is set in it is data. It may name what is in a module that
    the config imports itself.

    Raises:
        UserError: naming the key, and what it would run.
    """
    imports = cfg.get("custom_imports")
    modules = imports.get("imports") if isinstance(imports, Mapping) else None
    own = tuple(f"{m}." for m in ([modules] if isinstance(modules, str) else modules or ()))
    for where, _, text in values_of({key: value}):
        if not isinstance(text, str) or text.startswith(own):
            continue
        if _leads_to_code(text) and not _is_known(text):
            raise UserError(
                f"--set {where}={text!r} is a path to code, and a value is data: none of it was "
                "run.",
                "Use a registered name, or write it into the .py config, which is a program.",
            )


@contextlib.contextmanager
def _inheriting_from_data_only() -> Iterator[None]:
    """Meanwhile mmengine reads no program that a YAML or JSON file names as its ``_base_``."""
    read = Config._file2dict
    parents: list[str] = []

    def guarded(filename: str, *args: Any, **kwargs: Any) -> Any:
        if parents and is_data(parents[-1]) and not is_data(filename) and not _is_named(filename):
            raise UserError(
                f"{parents[-1]} inherits from {filename}, which is a program.",
                "Inherit from a .yaml or .json config or from one that is installed "
                "(mmdet::..., sparsevit::...), or write the config itself in Python.",
            )
        if is_data(filename):
            _refuse_size(filename)
        parents.append(filename)
        try:
            found = read(filename, *args, **kwargs)
        finally:
            parents.pop()
        if is_data(filename):
            _refuse_paths(found[0], Path(filename).name)
        return found

    Config._file2dict = staticmethod(guarded)
    try:
        yield
    finally:
        Config._file2dict = staticmethod(read)


@contextlib.contextmanager
def _found_by_name() -> Iterator[None]:
    """Meanwhile mmengine takes `mmdet::...` from the folder of configs if it is there.

    By itself it first reads what a package says of all its models: a second and more each time.
    """
    search = mmengine_config._get_external_cfg_path

    def found(package: str, name: str) -> str:
        path = os.path.join(package, ".mim", "configs", name)
        return path if os.path.isfile(path) else search(package, name)

    mmengine_config._get_external_cfg_path = found
    try:
        yield
    finally:
        mmengine_config._get_external_cfg_path = search


def _refuse_size(filename: str) -> None:
    with contextlib.suppress(OSError):
        size = os.stat(filename).st_size
        if size > MAX_BYTES:
            raise UserError(
                f"{filename} has {size / 2**20:.0f} MB, which is no config.",
                "Check the path; a config has a few thousand lines at most.",
            )


def _is_named(filename: str) -> bool:
    """Whether a file is one of the configs that a package of the ecosystem brings along."""
    path = Path(filename).expanduser().resolve()
    folders = [configs_folder()]
    for package in MODULE2PACKAGE:
        spec = find_spec(package)
        if spec is not None and spec.origin:
            folders.append(Path(spec.origin).parent / ".mim" / "configs")
    return any(folder.resolve() in path.parents for folder in folders)


# --- what a value may be -------------------------------------------------------------------------


def _refuse_paths(content: Mapping[str, Any], name: str) -> None:
    """Refuse what leads to code wherever it stands, whatever is registered."""
    _refuse_imports(content.get("custom_imports"), name)
    compiled = content.get("compile")
    if isinstance(compiled, Mapping) and "options" in compiled:
        raise UserError(f"{name}: compile.options may name a compiler to run.", _REMEDY)
    for where, key, value in values_of(content):
        if key in _RUN and value is not None:
            raise UserError(f"{name}: {where}: what is given here {_RUN[key]}.", _REMEDY)
        if not isinstance(value, str) or where.startswith("custom_imports."):
            continue
        if key == _FORMAT_KEY and not _FORMAT.fullmatch(value):
            raise UserError(f"{name}: {where}: what is given here is evaluated as Python.", _REMEDY)
        if key in _SCOPE_KEYS and value not in _SCOPES:
            raise UserError(
                f"{name}: {where}={value!r} is none of the frameworks' scopes.",
                f"Use one of {', '.join(sorted(_SCOPES & set(sys.modules)))}. A .py config, which "
                "is a program, may use another.",
            )
        if _leads_to_code(value) and not _is_known(value):
            raise UserError(
                f"{name}: {where}={value!r} is a path to code, and a config of this format is "
                "data: none of it was run.",
                _REMEDY,
            )


def _refuse_unregistered(content: Mapping[str, Any], name: str) -> None:
    scope = content.get("default_scope")
    if isinstance(scope, str):
        _register(scope)
    for where, key, value in values_of(content):
        if key == "type" and isinstance(value, str) and not _is_known(value):
            raise UserError(
                f"{name}: {where}={value!r} is not registered, and a config of this format names "
                "only what is.",
                _REMEDY,
            )


def _refuse_imports(imports: Any, name: str) -> None:
    if not imports:
        return
    modules = imports.get("imports") if isinstance(imports, Mapping) else None
    if not isinstance(imports, Mapping) or not set(imports) <= {"imports", "allow_failed_imports"}:
        raise UserError(
            f"{name}: custom_imports is {imports!r}.", "Write it as: custom_imports: {imports: []}"
        )
    for module in modules if isinstance(modules, (list, tuple)) else [modules]:
        parts = str(module).split(".")
        if parts[0] in _SCOPES and all(p.isidentifier() and p[:2] != "__" for p in parts):
            continue
        raise UserError(
            f"{name}: custom_imports names {module!r}, which is no module of the frameworks.",
            "Write the config in Python: a .py config is a program, and may import anything.",
        )


def values_of(content: Any) -> Iterator[tuple[str, str, Any]]:
    """(dotted name, last key that is a name, value) of everything in a config."""
    left: list[tuple[str, str, Any]] = [("", "", content)]
    seen = set()
    while left:
        where, key, value = left.pop()
        if isinstance(value, (Mapping, list, tuple)):
            # a program may put a list into itself
            place = (id(value), where.partition(".")[0], key)
            if place in seen:
                continue
            seen.add(place)
        if isinstance(value, Mapping):
            left += [(f"{where}.{k}" if where else str(k), str(k), v) for k, v in value.items()]
        elif isinstance(value, (list, tuple)):
            left += [(f"{where}.{n}", key, item) for n, item in enumerate(value)]
        if where:
            yield where, key, value


def _leads_to_code(text: str) -> bool:
    """Whether mmengine, asked for this name, could import something; imports nothing itself."""
    if not _PATH.fullmatch(text) or _FILES.fullmatch(text):
        return False
    first, second, *_ = text.split(".")
    module = sys.modules.get(first)
    if module is None:
        try:
            return find_spec(first) is not None
        except (ImportError, ValueError):
            return True
    if second in dir(module):
        return True
    folders = getattr(module, "__path__", None)
    return folders is not None and PathFinder.find_spec(f"{first}.{second}", folders) is not None


def _is_known(name: str) -> bool:
    """Whether a ``type`` is registered, with or without the scope of its registry before it."""
    scope, dot, rest = name.rpartition(".")
    if dot:
        return scope in _SCOPES and any(rest in each.module_dict for each in _registries(scope))
    if name in _CHOSEN:
        return True
    for usual in ("mmengine", "mmdet", "sparsevit"):
        _register(usual)
    return any(name in each.module_dict for each in _all_registries()) or _is_op(name)


def _is_op(name: str) -> bool:
    found = getattr(import_module("mmcv.ops"), name, None)
    return not name.startswith("_") and (inspect.isclass(found) or inspect.isfunction(found))


def _registries(scope: str) -> list[Registry]:
    _register(scope)
    return [each for each in _all_registries() if each.scope == scope]


@functools.cache
def _register(scope: str) -> None:
    """Import what a framework registers; nothing of one that is not installed."""
    modules = ("models", "engine.hooks") if scope == "sparsevit" else ("registry",)
    with quiet_libraries():
        with contextlib.suppress(UserError):
            import_library(scope)
        for module in modules:
            with contextlib.suppress(ImportError):
                import_module(f"{scope}.{module}")
        for each in _all_registries():
            if each.scope == scope:
                with contextlib.suppress(ImportError):
                    each.import_from_location()


def _all_registries() -> list[Registry]:
    found = [each for each in vars(registry).values() if isinstance(each, Registry)]
    for each in found:
        found += each.children.values()
    for scope in _SCOPES:
        library = vars(sys.modules.get(f"{scope}.registry", registry))
        found += [library[name] for name in _APART if name in library]
    return found
