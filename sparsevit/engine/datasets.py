"""The datasets of a config: made where they are the embedded one, checked before they are used."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dataset import Compose

from sparsevit.data.images import image_fault
from sparsevit.data.make import make_dataset
from sparsevit.data.nuscenes.made.spec import TASK as BEV
from sparsevit.data.nuscenes.made.spec import ScenesSpec
from sparsevit.data.spec import DatasetSpec
from sparsevit.engine import distributed
from sparsevit.errors import UserError
from sparsevit.tasks import task_of

_CHECK = (
    "Check this image (--skip-broken leaves out those that cannot be decoded), its annotations, "
    "and the pipeline in the config."
)
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
    scenes = isinstance(spec, ScenesSpec)
    root = folder / f"{'scenes' if scenes else 'shapes'}-{hashlib.sha256(content).hexdigest()[:8]}"
    if distributed.is_first():
        _make(root, spec)
    distributed.share(None)
    old, new = cfg.data_root, f"{root}/"
    for part in _PARTS:
        if cfg.get(part):
            cfg[part] = _replaced(cfg[part], old, new)
    cfg.data_root = new
    return root


def check_datasets(
    cfg: Config, splits: tuple[str, ...], copies: Path | None = None
) -> tuple[str, ...]:
    """Refuse datasets that a run would stumble over, and a config that does not fit its data.

    Args:
        cfg: of a task; where broken images are left out, it is changed in every process.
        splits: of ``train``, ``val``, ``test``; where there is no ``val``, ``test`` stands for it.
        copies: see :meth:`sparsevit.tasks.Task.check_data`.

    Returns:
        What was left out, in sentences.

    Raises:
        UserError: see :meth:`sparsevit.tasks.Task.check_data`.
    """
    if "val" in splits and not cfg.get("val_dataloader"):
        splits = (*splits, "test")
    said: tuple[str, ...] = ()
    if distributed.is_first():
        said = task_of(cfg).check_data(cfg, splits, copies)
    if copies is not None:
        changed = distributed.share({part: cfg.get(part) for part in _PARTS})
        for part, value in changed.items():
            if value is not None:
                cfg[part] = value
    return said


class UnusableImage(UserError):
    """An image that could not be loaded when its turn came.

    Args:
        problem: what is wrong. A worker of a data loader gives its whole traceback here, of which
            the last lines are the message.
    """

    def __init__(self, problem: str, remedy: str = _CHECK) -> None:
        said = problem.rpartition(f"{type(self).__name__}: ")[2].strip()
        super().__init__(said.removesuffix(remedy).strip(), remedy)


class NamingPipeline(Compose):
    """A pipeline that names the image at which it fails."""

    def __init__(self, pipeline: Compose) -> None:
        super().__init__(())
        self.transforms = pipeline.transforms

    def __call__(self, data: dict[str, Any]) -> dict[str, Any] | None:
        # it is changed on the way; a sample of several cameras has several images
        paths = data.get("img_paths") or [data.get("img_path")]
        try:
            return super().__call__(data)
        except Exception as error:
            for path in filter(None, paths):
                wrong = image_fault(path, whole=True)
                if wrong is not None:
                    raise UnusableImage(f"{path} {wrong}.") from error
            raise  # no image is to blame


def name_broken_images(dataset: Any) -> None:
    """Have the pipelines of a dataset, and of those within it, name an image that is broken."""
    if type(getattr(dataset, "pipeline", None)) is Compose:
        dataset.pipeline = NamingPipeline(dataset.pipeline)
    for one in (getattr(dataset, "dataset", None), *getattr(dataset, "datasets", ())):
        if one is not None:
            name_broken_images(one)


def _spec(described: Any) -> DatasetSpec | ScenesSpec:
    arguments: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in dict(described).items()
    }
    kind = ScenesSpec if arguments.get("task") == BEV else DatasetSpec
    if kind is ScenesSpec:
        del arguments["task"]
    try:
        return kind(**arguments)
    except TypeError as error:
        raise UserError(
            f"The config's embedded_dataset is not valid: {error}.",
            f"It takes the arguments of {kind.__module__}.{kind.__name__}.",
        ) from error


def _make(root: Path, spec: DatasetSpec | ScenesSpec) -> None:
    if isinstance(spec, ScenesSpec):
        from sparsevit.data.nuscenes.made.make import make_scenes

        make_scenes(root, spec)
    else:
        make_dataset(root, spec)


def _replaced(value: Any, old: str, new: str) -> Any:
    if isinstance(value, str):
        return new + value[len(old) :] if value.startswith(old) else value
    if isinstance(value, dict):
        return type(value)({k: _replaced(v, old, new) for k, v in value.items()})
    if isinstance(value, (list, tuple)):
        return type(value)(_replaced(v, old, new) for v in value)
    return value
