"""The datasets of a config: made where they are the embedded one, checked before they are used."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from mmengine.config import Config

from sparsevit.data.make import make_dataset
from sparsevit.data.spec import DatasetSpec
from sparsevit.engine import distributed
from sparsevit.errors import UserError
from sparsevit.tasks import task_of

_PARTS = (
    "train_dataloader",
    "val_dataloader",
    "test_dataloader",
    "val_evaluator",
    "test_evaluator",
)


def provide_embedded(cfg: Config, folder: Path) -> Path | None:
    """Make the dataset that ``embedded_dataset`` of a config describes, and point the config to it.

    Args:
        cfg: changed in place; nothing happens to one without ``embedded_dataset``.
        folder: where the dataset's own folder is made, named after what it is made of.

    Returns:
        The dataset's root.
    """
    described = cfg.get("embedded_dataset")
    if not described:
        return None
    spec = _spec(described)
    content = json.dumps(spec.to_dict(), sort_keys=True).encode()
    root = folder / f"shapes-{hashlib.sha256(content).hexdigest()[:8]}"
    if distributed.is_first():
        make_dataset(root, spec)
    distributed.share(None)
    old, new = cfg.data_root, f"{root}/"
    for part in _PARTS:
        if cfg.get(part):
            cfg[part] = _replaced(cfg[part], old, new)
    cfg.data_root = new
    return root


def check_datasets(cfg: Config, splits: tuple[str, ...]) -> None:
    """Refuse datasets that a run would stumble over.

    Args:
        cfg: of a task.
        splits: of ``train``, ``val``, ``test``.

    Raises:
        UserError: see :meth:`sparsevit.tasks.Task.check_dataset`.
    """
    if not distributed.is_first():
        return
    for split in splits:
        loader = cfg.get(f"{split}_dataloader")
        if loader:
            task_of(cfg).check_dataset(loader.get("dataset"))


def _spec(described: Any) -> DatasetSpec:
    try:
        arguments: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in dict(described).items()
        }
        return DatasetSpec(**arguments)
    except TypeError as error:
        raise UserError(
            f"The config's embedded_dataset is not valid: {error}.",
            "It takes the arguments of sparsevit.data.spec.DatasetSpec.",
        ) from error


def _replaced(value: Any, old: str, new: str) -> Any:
    if isinstance(value, str):
        return new + value[len(old) :] if value.startswith(old) else value
    if isinstance(value, dict):
        return type(value)({k: _replaced(v, old, new) for k, v in value.items()})
    if isinstance(value, (list, tuple)):
        return type(value)(_replaced(v, old, new) for v in value)
    return value
