"""Scoring configurations for a search, each once in a workspace."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

from mmengine.config import Config
from torch import nn

from sparsevit.engine import distributed
from sparsevit.engine.evaluation import Evaluation
from sparsevit.engine.partial_evaluation import PartialEvaluation
from sparsevit.errors import UserError
from sparsevit.methods import networks_of
from sparsevit.sparsity import Configuration
from sparsevit.sparsity.handle import SparsityHandle
from sparsevit.tasks import task_of
from sparsevit.workspace import Workspace
from sparsevit.workspace.evaluations import Evaluations


class Scorer:
    """The score of a model at one configuration after the other.

    Args:
        ws: keeps what was found, for this search and later ones.
        cfg: whose validation set is scored.
        model: of it.
        checkpoint: SHA-256 of its weights.
        metric: what to give, in points; the headline of the task where None.
        images: score on the first N images only.

    Raises:
        UserError: the metric is none that the evaluation gives, as far as that is known.

    Attributes:
        metric: what a score is.
        network: (configuration) -> what it comes to on these images; equal where the model computes
            the same.
    """

    def __init__(
        self,
        ws: Workspace,
        cfg: Config,
        model: nn.Module,
        *,
        checkpoint: str,
        metric: str | None,
        images: int | None,
    ) -> None:
        self._cfg = cfg
        self._model = model
        self._handle = SparsityHandle(model)
        self._task = task_of(cfg)
        self.metric = metric or self._task.metric
        self._evaluation = Evaluation(cfg, images)
        self._kept = Evaluations(ws.path)
        self.network = networks_of(model, self._evaluation.image_sizes(model))
        self._parts: PartialEvaluation | None = None
        self._seed = 0
        known = self._evaluation.known_metrics
        if known and self.metric not in known:
            raise unknown_metric(self.metric, known)
        self._key = {
            "checkpoint": checkpoint,
            "evaluation": _evaluation_digest(cfg, f"{ws.path}{os.sep}"),
            "images": self._evaluation.num_images,
        }

    @property
    def split(self) -> str:
        """Which of the config's splits a score is of."""
        return self._evaluation.split

    @property
    def images(self) -> int:
        """How many images a score is from."""
        return self._evaluation.num_images

    def in_parts(self, shares: tuple[float, ...], seed: int) -> None:
        """Makes :meth:`on_share` take these shares of the images, drawn at random.

        Raises:
            UserError: the metrics can only be computed on all images.
        """
        self._parts = PartialEvaluation(self._cfg, self._evaluation, shares, seed)
        self._seed = seed

    def during_batch(self, context: Callable[[], AbstractContextManager[None]]) -> None:
        """Sets what is entered around the work on each batch."""
        self._evaluation.during_batch = context
        if self._parts is not None:
            self._parts.during_batch(context)

    def __call__(self, configuration: Configuration) -> float:
        """The score on all images, of all processes together; in the first process."""
        return self._score(self.metrics(configuration))

    def metrics(self, configuration: Configuration) -> dict[str, float]:
        """All that the evaluation gives, as :meth:`__call__` takes its score from."""

        def evaluate() -> dict[str, float]:
            distributed.share(configuration)
            return self._evaluated(configuration)

        return self._once(configuration, {}, evaluate)

    def on_share(self, configuration: Configuration, share: float) -> float:
        """The score on a share of the images, or on all of them where it is 1."""
        parts = self._parts
        assert parts is not None
        part = {"share": parts.images(share), "seed": self._seed} if share < 1 else {}

        def evaluate() -> dict[str, float]:
            self._handle.set(configuration)
            return parts(self._model, configuration, share)

        return self._score(self._once(configuration, part, evaluate))

    def help_the_first(self) -> None:
        """Scores this process's images of every configuration that the first process asks for."""
        while (configuration := distributed.share(None)) is not None:
            self._evaluated(configuration)

    def _once(
        self,
        configuration: Configuration,
        part: dict[str, Any],
        evaluate: Callable[[], dict[str, float]],
    ) -> dict[str, float]:
        """The metrics that the workspace has of a network, evaluated where it has none."""
        key = {**self._key, **part, "network": self.network(configuration)}
        known = self._kept.read(key)
        if known is None:
            # as versions before this one kept it
            known = self._kept.read({**self._key, **part, "configuration": configuration.to_dict()})
        if known is None:
            known = evaluate()
            self._kept.write(key, known)
        return known

    def _evaluated(self, configuration: Configuration) -> dict[str, float]:
        self._handle.set(configuration)
        return self._evaluation(self._model)

    def points(self, metrics: dict[str, float]) -> dict[str, float]:
        """Metrics in points, without those that the images cannot give."""
        return self._task.in_points(metrics)

    def _score(self, metrics: dict[str, float]) -> float:
        points = self.points(metrics)
        if self.metric not in points:
            raise unknown_metric(self.metric, points)
        return points[self.metric]


def unknown_metric(metric: str, known: Iterable[str]) -> UserError:
    """That an evaluation does not give a metric."""
    return UserError(
        f"The evaluation does not report the metric {metric!r}.", f"Use one of: {', '.join(known)}."
    )


def _evaluation_digest(cfg: Config, workspace: str) -> str:
    """SHA-256 of what a config says of the model, the images and the metrics."""
    names = ("model", "val_dataloader", "test_dataloader", "val_evaluator", "test_evaluator")
    said = {name: cfg.get(name) for name in names}
    for name in ("val_dataloader", "test_dataloader"):
        if said[name]:
            said[name] = said[name].get("dataset")
    text = json.dumps(said, sort_keys=True, default=str)
    # a workspace that is moved keeps what was evaluated in it
    return hashlib.sha256(text.replace(workspace, "").encode()).hexdigest()
