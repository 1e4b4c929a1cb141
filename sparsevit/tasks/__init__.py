"""Kinds of problems, one folder each: what one needs in configs, models, metrics and exports.

>>> task = task_of(cfg)  # or task_of_model(model)
>>> model = task.build(cfg.model)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparsevit.errors import UserError
from sparsevit.tasks.base import Task
from sparsevit.tasks.bev import Bev
from sparsevit.tasks.classification import Classification
from sparsevit.tasks.detection import Detection
from sparsevit.tasks.segmentation import Segmentation

if TYPE_CHECKING:
    from mmengine.config import Config
    from torch import nn

__all__ = [
    "TASKS",
    "Task",
    "headlines",
    "import_library",
    "in_points",
    "shown",
    "task_of",
    "task_of_model",
    "task_of_scope",
]

TASKS: dict[str, Task] = {
    task.name: task for task in (Detection(), Segmentation(), Bev(), Classification())
}

_ASKED = sorted(TASKS.values(), key=lambda task: not task.models)
"""Whose a model is: first those with some models of a library, then those with all others of it."""


def task_of(cfg: Config) -> Task:
    """The task that a config's model is for.

    It follows from the scope of the model's type, or ``default_scope``, or, where the config has
    neither, from who knows the model's type.

    Raises:
        UserError: none here knows such models, or its library is not installed.
    """
    kind = (cfg.get("model") or {}).get("type", "")
    found = next((one for one in _ASKED if one.takes(kind, cfg.get("default_scope"))), None)
    if found is not None:
        found.registries()
        return found
    raise UserError(
        f"No task supports models of type {getattr(kind, '__name__', kind)!r} "
        f"(default_scope: {cfg.get('default_scope')!r}).",
        f"Use a config for one of: {_known()}.",
    )


def import_library(scope: str) -> None:
    """Import the library of a scope as its task does: some take more than an import.

    Raises:
        UserError: it is not installed.
    """
    for one in TASKS.values():
        if one.scope == scope:
            one.registries()


def task_of_model(model: nn.Module) -> Task:
    """The task that a model was built for.

    Raises:
        UserError: none here builds such models.
    """
    model = getattr(model, "module", model)
    found = next((one for one in _ASKED if one.built(model)), None)
    if found is not None:
        return found
    raise UserError(
        f"{type(model).__name__} is not a model of any supported task.", f"Use one of: {_known()}."
    )


def task_of_scope(scope: str) -> Task | None:
    """The task whose whole model ``--scope`` names; None for a backbone, which all have.

    Raises:
        UserError: there is no such scope.
    """
    if scope == "backbone":
        return None
    wholes = {one.whole: one for one in TASKS.values()}
    if scope not in wholes:
        names = ", ".join(("backbone", *wholes))
        raise UserError(f"There is no scope {scope!r}.", f"Use one of {names}.")
    return wholes[scope]


def headlines() -> dict[str, str]:
    """The headline metrics of all tasks, and what tables call them."""
    return {name: said for one in TASKS.values() for name, said in one.headlines.items()}


def in_points(metric: str) -> str:
    """What a metric in points is called: ``bbox_mAP x 100``, and ``mIoU``, which is in percent."""
    return metric if _percent(metric) else f"{metric} x 100"


def shown(metric: str, value: float | None) -> str:
    """A headline in a table; see :meth:`Task.shown`."""
    tasks = TASKS.values()
    return next(one for one in tasks if metric in one.headlines).shown(metric, value)


def _percent(metric: str) -> bool:
    return any(metric in one.in_percent for one in TASKS.values())


def _known() -> str:
    return ", ".join(f"{one.name} ({one.scope})" for one in TASKS.values())
