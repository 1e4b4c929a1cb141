"""Metrics of a model, as often as a search wants them."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from mmengine import dist
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch.utils._pytree import tree_leaves

from sparsevit.engine.datasets import name_broken_images
from sparsevit.engine.finite import finite_maps
from sparsevit.engine.mistakes import config_mistakes
from sparsevit.engine.quiet import quiet_libraries
from sparsevit.errors import RunFailed, UserError
from sparsevit.report.reporter import SILENT, Reporter
from sparsevit.tasks import task_of

CACHE_LIMIT_BYTES = 1 << 30


class Evaluation:
    """The validation set of a config, ready to score a model again and again.

    Batches are kept in memory where they fit, so that a search decodes its images once.

    Args:
        cfg: of a task; its ``val_dataloader`` and ``val_evaluator`` are used, or else those of
            ``test``.
        images: score the first N images only; all where None, or where there are fewer.
        batch_size: images a batch; the config's where None.
        only: numbers of the images to score instead of the first N.

    Attributes:
        during_batch: entered around the work on each batch and on the metrics.

    Raises:
        UserError: the config has no validation set.
    """

    def __init__(
        self,
        cfg: Config,
        images: int | None = None,
        batch_size: int | None = None,
        only: Sequence[int] | None = None,
    ) -> None:
        self.during_batch: Callable[[], AbstractContextManager[None]] = nullcontext
        self._task = task = task_of(cfg)
        init_default_scope(cfg.get("default_scope", task.scope))
        split = "val" if cfg.get("val_dataloader") else "test"
        loader_cfg, metric_cfg = cfg.get(f"{split}_dataloader"), cfg.get(f"{split}_evaluator")
        if not loader_cfg or not metric_cfg:
            raise UserError(
                "The config has no validation set.",
                "Add val_dataloader and val_evaluator (or test_dataloader and test_evaluator).",
            )
        loader_cfg = copy.deepcopy(loader_cfg)
        if batch_size is not None:
            loader_cfg["batch_size"] = batch_size
        chosen = images if only is None else [int(number) for number in only]
        if chosen is not None:
            loader_cfg["dataset"]["indices"] = chosen
        self.known_metrics = task.known_metrics(metric_cfg)
        with quiet_libraries(), config_mistakes(f"The {split} set"):
            self.loader = Runner.build_dataloader(loader_cfg)
            name_broken_images(self.loader.dataset)
            self.evaluator = Evaluator(copy.deepcopy(metric_cfg))
            self.evaluator.dataset_meta = self.loader.dataset.metainfo
            self.num_images = len(self.loader.dataset)
            if chosen is not None:
                task.score_only(self.evaluator.metrics, self.image_ids())
            self._cache: list[Any] | None = [] if self._fits() else None

    def __call__(
        self, model: Any, reporter: Reporter = SILENT, description: str = "evaluate"
    ) -> dict[str, float]:
        """Metrics of a model as it is set now, by name.

        A name has no prefix, unless two metrics of the evaluator would have the same without.
        """
        self._run(model, reporter, description)
        return self._metrics()

    def predictions(self, model: Any) -> list[list[Any]]:
        """What each metric keeps of the model's predictions, to be scored with others'."""
        self._run(model, SILENT, "evaluate")
        found = [metric.results for metric in self.evaluator.metrics]
        for metric in self.evaluator.metrics:
            metric.results = []
        return found

    def score(self, parts: Sequence[tuple[Evaluation, list[list[Any]]]]) -> dict[str, float]:
        """Metrics of predictions that several evaluations of this config made, as of one.

        Args:
            parts: evaluations of different images, each with its predictions.
        """
        ids = [number for part, _ in parts for number in part.image_ids()]
        for index, metric in enumerate(self.evaluator.metrics):
            metric.results = [result for _, found in parts for result in found[index]]
        self._task.score_only(self.evaluator.metrics, ids)
        return self._metrics(len(ids))

    def scores_parts(self) -> bool:
        """Whether the metrics can be computed on some of the images alone."""
        return self._task.scores_parts(self.evaluator.metrics)

    def image_ids(self) -> list[Hashable]:
        """Which images are scored, as their annotations name them."""
        dataset = self.loader.dataset
        return [self._task.image_id(dataset.get_data_info(i)) for i in range(len(dataset))]

    def _run(self, model: Any, reporter: Reporter, description: str) -> None:
        was_training = model.training
        model.eval()
        now: Any = None

        def images() -> str:
            paths = [getattr(sample, "img_path", None) for sample in now["data_samples"]]
            return ", ".join(str(path) for path in paths if path) or "a batch"

        with (
            torch.no_grad(),
            finite_maps(self._backbone(model), images),
            reporter.task(description, len(self.loader)) as task,
        ):
            for batch in self._batches():
                now = batch
                with self.during_batch():
                    outputs = model.val_step(batch)
                    self._task.to_fp32(outputs)
                    self.evaluator.process(data_samples=outputs, data_batch=batch)
                task.advance()
        model.train(was_training)

    def _backbone(self, model: Any) -> Any:
        try:
            return self._task.backbone_of(model)
        except AttributeError:
            return None

    def _metrics(self, images: int | None = None) -> dict[str, float]:
        with quiet_libraries(), self.during_batch():
            metrics = self.evaluator.evaluate(self.num_images if images is None else images)
        for name, value in metrics.items():
            if value != value and name.rpartition("/")[2] in self._task.headlines:
                raise RunFailed(
                    f"The metric {name} is not a number (NaN).",
                    "Look at the weights, the precision and the annotations.",
                )
        found = {name: float(value) for name, value in metrics.items() if _is_number(value)}
        return _short_names({**self._nothing_found(), **found})

    def _nothing_found(self) -> dict[str, float]:
        """What metrics leave out where a model finds nothing at all."""
        return {
            "/".join(filter(None, (metric.prefix, name))): value
            for metric in self.evaluator.metrics
            for name, value in self._task.nothing_found(metric).items()
        }

    def _batches(self) -> Iterator[Any]:
        if self._cache is None:
            yield from self.loader
            return
        if not self._cache:
            self._cache = list(self.loader)
        for batch in self._cache:
            # predictions are written onto the samples
            yield {**batch, "data_samples": [s.clone() for s in batch["data_samples"]]}

    def _fits(self) -> bool:
        if not self.num_images:
            return False
        inputs = tree_leaves(self.loader.dataset[0]["inputs"])
        pixels = sum(one.numel() for one in inputs if isinstance(one, torch.Tensor))
        return pixels * self.num_images / dist.get_world_size() < CACHE_LIMIT_BYTES


def _short_names(metrics: Mapping[str, float]) -> dict[str, float]:
    """Names without the prefix of their metric, where that leaves each a name of its own."""
    counts = Counter(name.rpartition("/")[2] for name in metrics)
    return {
        name if counts[short] > 1 else short: value
        for name, value in metrics.items()
        for short in [name.rpartition("/")[2]]
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and value == value
