"""Scoring a model on more and more images, each of which it sees once."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from mmengine.config import Config

from sparsevit.engine.evaluation import Evaluation
from sparsevit.errors import UserError


class PartialEvaluation:
    """The validation set of a config in parts, drawn at random.

    The images of a smaller share are among those of a larger one. Predictions of the model that was
    scored last are kept, so that a larger share costs only what it adds.

    Args:
        cfg: as of the whole.
        whole: the evaluation of all images that count.
        shares: of the images, increasing, each below 1.
        seed: of the draw.

    Raises:
        UserError: a metric cannot be computed on some of the images alone.
    """

    def __init__(
        self, cfg: Config, whole: Evaluation, shares: Sequence[float], seed: int = 0
    ) -> None:
        if not whole.scores_parts():
            raise UserError(
                "The metrics of this config can only be computed on all images.",
                "Search without --halving, or use a different val_evaluator.",
            )
        numbers = list(range(whole.num_images))
        random.Random(f"images:{seed}").shuffle(numbers)
        # of few images two shares may hold the same
        ends = [max(1, round(share * len(numbers))) for share in shares] + [len(numbers)]
        self._parts: list[tuple[int, Evaluation]] = []
        start = 0
        for end in ends:
            if end > start:
                part = Evaluation(cfg, only=sorted(numbers[start:end]))
                self._parts.append((end, part))
                start = end
        self._ends = dict(zip((*shares, 1.0), ends, strict=True))
        self._whole = self._parts[0][1]
        self._model: Hashable = None
        self._found: list[list[list[Any]]] = []

    def during_batch(self, context: Callable[[], AbstractContextManager[None]]) -> None:
        """Sets what is entered around each batch."""
        for _, part in self._parts:
            part.during_batch = context

    def images(self, share: float) -> int:
        """How many images a share is."""
        return self._ends[share]

    def __call__(self, model: Any, identity: Hashable, share: float) -> dict[str, float]:
        """Metrics of a model on a share of the images.

        Args:
            identity: tells one model from another, such as its configuration.
            share: one of the shares, or 1.
        """
        if identity != self._model:
            self._model, self._found = None, []
        wanted = [part for end, part in self._parts if end <= self._ends[share]]
        for part in wanted[len(self._found) :]:
            self._found.append(part.predictions(model))
            self._model = identity
        found = self._found[: len(wanted)]
        return self._whole.score(list(zip(wanted, found, strict=True)))
