"""Configurations on disk: YAML or JSON, readable by people, written in one step."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sparsevit.atomic import remove_leftovers, write_atomic
from sparsevit.errors import UserError
from sparsevit.plain_files import read_plain
from sparsevit.sparsity.configuration import Configuration, ConfigurationError
from sparsevit.sparsity.space import Space

_SUFFIXES = (".yaml", ".yml", ".json")
_EXAMPLE = "Write a configuration file as: sparsity: {backbone.stages.0: 0.6, ...}"


class _Dumper(yaml.SafeDumper):
    """Mappings a line each, lists in one line, as the paper's configs write them."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(
    list,
    lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True),
)


def write_configuration(
    path: str | os.PathLike[str],
    configuration: Mapping[str, float],
    meta: Mapping[str, Any] | None = None,
) -> Path:
    """Writes ``sparsity: {knob: ratio, ...}`` and what is known about it, in one step.

    Args:
        path: its suffix says the form: ``.yaml``, ``.yml`` or ``.json``. Folders are made.
        configuration: knob name to ratio.
        meta: further plain data (score, latency, ...), written beside ``sparsity``.

    Raises:
        UserError: where the suffix is another, or the path cannot be written.
    """
    target = Path(path)
    _refuse_other_suffix(target)
    write_text(target, configuration_text(configuration, meta, target.suffix))
    return target


def configuration_text(
    configuration: Mapping[str, float], meta: Mapping[str, Any] | None = None, form: str = ".yaml"
) -> str:
    """What :func:`write_configuration` writes; ``form`` is the suffix it would go by."""
    document = {"sparsity": Configuration(configuration).to_dict(), **dict(meta or {})}
    if form == ".json":
        return json.dumps(document, indent=2) + "\n"
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def read_configuration(path: str | os.PathLike[str], space: Space | None = None) -> Configuration:
    """Reads a configuration file.

    Three forms are taken: ``sparsity: {knob: ratio}``; ``pruning_ratios: [[...], ...]`` as the
    paper's configs have it; or such a nested list alone. Nested lists have no names, so they need
    a space.

    Args:
        path: a YAML or JSON file.
        space: what the configuration must suit; None checks only that ratios are ratios.

    Raises:
        UserError: where the file is missing, unreadable, not of these forms or (ConfigurationError)
            does not suit the space.
    """
    source = Path(path)
    document = read_document(source)
    try:
        return _configuration(document, space)
    except ConfigurationError as error:
        raise ConfigurationError(f"{source}: {error.problem}", error.remedy, error.knob) from error


def read_document(path: str | os.PathLike[str]) -> Any:
    """The plain data of a YAML or JSON file; see :func:`sparsevit.plain_files.read_plain`.

    Raises:
        UserError: where the file is missing, unreadable, too large or neither.
    """
    _refuse_other_suffix(Path(path))
    return read_plain(path, remedy=_EXAMPLE)


def _configuration(document: Any, space: Space | None) -> Configuration:
    if document is None:
        raise ConfigurationError("It is empty: it holds no configuration.", _EXAMPLE)
    if isinstance(document, list):
        return _from_nested(document, space)
    if not isinstance(document, dict):
        raise ConfigurationError("It holds no configuration.", _EXAMPLE)
    if "sparsity" not in document and "pruning_ratios" not in document:
        raise ConfigurationError("It has neither 'sparsity' nor 'pruning_ratios'.", _EXAMPLE)
    if "sparsity" not in document:
        return _from_nested(document["pruning_ratios"], space)
    named = document["sparsity"]
    if not isinstance(named, dict):
        raise ConfigurationError("Its 'sparsity' does not map knobs to ratios.", _EXAMPLE)
    if space is None:
        return Configuration(named)
    configuration = space.validate(named)
    nested = document.get("pruning_ratios")
    if nested is not None and space.from_nested(nested) != configuration:
        raise ConfigurationError(
            "Its 'sparsity' and its 'pruning_ratios' differ.",
            "They say the same in two forms: remove the one that you did not mean.",
        )
    return configuration


def _from_nested(nested: Any, space: Space | None) -> Configuration:
    if space is None:
        raise ConfigurationError(
            "Its ratios are listed by stage, and without a model they have no names.",
            _EXAMPLE,
        )
    return space.from_nested(nested)


def _refuse_other_suffix(path: Path) -> None:
    if path.suffix not in _SUFFIXES:
        raise UserError(
            f"{path} does not have the suffix of a configuration file.",
            f"Use one of the suffixes {', '.join(_SUFFIXES)}.",
        )


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text file in one step: whoever reads it sees the old or the new, never a part.

    Raises:
        UserError: where the path cannot be written.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target.parent, target.name)
        write_atomic(target, text)
    except OSError as error:
        raise UserError(
            f"{target} cannot be written: {error.strerror or error}.",
            "Choose a folder that is writable and has free space.",
        ) from error
