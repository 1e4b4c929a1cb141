"""Which config is meant: a path, ``mmdet::...``, ``sparsevit::...`` or a shipped one's name."""

from __future__ import annotations

import difflib
import importlib.util
import os
from pathlib import Path

import sparsevit
from sparsevit.errors import UserError
from sparsevit.plain_files import expanded

SUFFIXES = (".py", ".yaml", ".yml", ".json")
_MOST_FOLDERS = 1000
_DISTRIBUTIONS = {
    "mmdet": "onedl-mmdetection",
    "mmpretrain": "onedl-mmpretrain",
    "mmseg": "onedl-mmsegmentation",
}
_LIST = "Shipped configs: "


def register_scope() -> None:
    """Let mmengine find ``sparsevit::...``, in ``_base_`` of anybody's config too."""
    from mmengine.config.utils import MODULE2PACKAGE

    MODULE2PACKAGE.setdefault("sparsevit", "sparsevit")
    # found by its module: the maintained line has another distribution of it
    MODULE2PACKAGE["mmseg"] = "mmseg"


def configs_folder() -> Path:
    """Where the configs that come with this package lie."""
    return Path(sparsevit.__file__).resolve().parent / ".mim" / "configs"


def shipped_configs() -> list[str]:
    """Names of the configs that come with this package, such as ``sparsevit/....py``; not those of
    parts to inherit from."""
    return [name for name in _names_in(configs_folder()) if not name.startswith("_base_/")]


def resolve_config(name: str | Path) -> Path:
    """The file that a config's name stands for.

    Args:
        name: a path; ``package::folder/file.py`` of an installed OpenMMLab package or of
            sparsevit; or a shipped config's name, with or without folder and suffix.

    Raises:
        UserError: there is none; says which names come near.
    """
    text = str(name)
    if "::" in text:
        return _in_package(text)
    path = expanded(text)
    if path.is_file():
        return _with_known_suffix(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder, not a config.", _near(text, _names_in(path)))
    shipped = [n for n in shipped_configs() if text in _spellings(n)]
    if len(shipped) == 1:
        return configs_folder() / shipped[0]
    if shipped:
        raise UserError(f"{text} matches {len(shipped)} configs.", f"Use one of {shipped}.")
    beside = [str(path.parent / n) for n in _names_in(path.parent, deep=False)]
    raise UserError(f"There is no config {text}.", _near(text, beside + shipped_configs()))


def _in_package(text: str) -> Path:
    from mmengine.config.utils import MODULE2PACKAGE

    package, _, name = text.partition("::")
    if package == "sparsevit":
        folder = configs_folder()
    else:
        if package not in MODULE2PACKAGE:
            known = ["sparsevit", *MODULE2PACKAGE]
            raise UserError(
                f"mmengine does not know the package {package!r}.", _near(package, known)
            )
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise UserError(
                f"{text} needs {package}, which is not installed.",
                f"pip install {_DISTRIBUTIONS.get(package, MODULE2PACKAGE[package])}",
            )
        folder = Path(spec.origin).parent / ".mim" / "configs"
    path = folder / name
    if path.is_file() and folder.resolve() in path.resolve().parents:
        return path
    names = [f"{package}::{n}" for n in _names_in(folder)]
    raise UserError(f"There is no config {text}.", _near(text, names))


def _with_known_suffix(path: Path) -> Path:
    if path.suffix not in SUFFIXES:
        raise UserError(
            f"{path} does not have the suffix of a config file.",
            f"Use one of the suffixes {', '.join(SUFFIXES)}.",
        )
    return path


def _names_in(folder: Path, deep: bool = True) -> list[str]:
    if not folder.is_dir():
        return []
    found: list[str] = []
    # not rglob: it fails on folders that vanish meanwhile, and never ends on `/`
    for looked, (where, folders, names) in enumerate(os.walk(folder)):
        inside = Path(where).relative_to(folder)
        found += [
            (inside / name).as_posix()
            for name in names
            if Path(name).suffix in SUFFIXES and name not in ("metafile.yml", "__init__.py")
        ]
        if not deep or looked == _MOST_FOLDERS:
            break
        folders.sort()
    return sorted(found)


def _spellings(name: str) -> tuple[str, ...]:
    path = Path(name)
    bare = path.with_suffix("").as_posix()
    return name, bare, path.name, path.stem, f"configs/{name}", f"configs/{bare}"


def _near(text: str, names: list[str]) -> str:
    # a name without its folder is further from the whole name than from its end
    spelled = {spelling: n for n in reversed(names) for spelling in (Path(n).stem, n)}
    near = difflib.get_close_matches(text, spelled, n=6, cutoff=0.5)
    close = list(dict.fromkeys(spelled[spelling] for spelling in near))[:3]
    if close:
        return f"Did you mean {' or '.join(close)}?"
    return f"{_LIST}{', '.join(shipped_configs())}." if names else "Check the path."
