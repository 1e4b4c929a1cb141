"""Results that hold for a key and are looked up again: a JSON file each, replaced as a whole."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparsevit.atomic import remove_leftovers, write_atomic
from sparsevit.plain_files import read_record
from sparsevit.workspace.digest import PREFIX, inputs_digest, to_json
from sparsevit.workspace.record import unwritable

_VERSION = 1
_NAME_LENGTH = 16


class Kept:
    """A folder of JSON documents, each under the key that it holds for.

    A file names its whole key, so one that was renamed, or written for another key, is never taken.
    A document that was changed by hand or cut short counts as missing: what is kept here can be
    made again.

    Args:
        folder: where; made with the first document.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def path(self, key: Mapping[str, Any]) -> Path:
        """The file of a key, whether it is there or not."""
        digest = inputs_digest(key).removeprefix(PREFIX)
        return self.folder / f"{digest[:_NAME_LENGTH]}.json"

    def read(self, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """The document of a key; None where there is none that can be read."""
        try:
            content = read_record(self.path(key))
        except ValueError:
            return None
        if not isinstance(content, dict) or content.get("version") != _VERSION:
            return None
        found, document = content.get("key"), content.get("document")
        if not isinstance(found, dict) or not isinstance(document, dict):
            return None
        return document if inputs_digest(found) == inputs_digest(key) else None

    def write(self, key: Mapping[str, Any], document: Mapping[str, Any]) -> Path:
        """Keep a document under a key, in place of the one that was there; returns its file.

        Only for who alone may write here, as within a run of the workspace.

        Raises:
            UserError: it cannot be written; what was there is as it was.
        """
        path = self.path(key)
        content = {
            "version": _VERSION,
            "key": to_json(key),
            "document": to_json(document),
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.folder, path.name)
            write_atomic(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        except OSError as error:
            raise unwritable(self.folder, error) from error
        return path
