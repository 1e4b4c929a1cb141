"""COCO metrics of a detector, as often as a search wants them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from mmengine import dist
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from sparsevit.engine.mistakes import config_mistakes
from sparsevit.engine.quiet import quiet_libraries
from sparsevit.errors import UserError
from sparsevit.report.reporter import SILENT, Reporter

CACHE_LIMIT_BYTES = 1 << 30

_SUFFIXES = ("", "_50", "_75", "_s", "_m", "_l")


class DetectorEvaluation:
    """The validation set of a config, ready to score a model again and again.

    Batches are kept in memory where they fit, so that a search decodes its images once.

    Args:
        cfg: mmdet config; its ``val_dataloader`` and ``val_evaluator`` are used, or else those of
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
        init_default_scope(cfg.get("default_scope", "mmdet"))
        split = "val" if cfg.get("val_dataloader") else "test"
        loader_cfg, metric_cfg = cfg.get(f"{split}_dataloader"), cfg.get(f"{split}_evaluator")
        if not loader_cfg or not metric_cfg:
            raise UserError(
                "The config has no validation set.",
                "Give it val_dataloader and val_evaluator (or test_dataloader and test_evaluator).",
            )
        loader_cfg = copy.deepcopy(loader_cfg)
        if batch_size is not None:
            loader_cfg["batch_size"] = batch_size
        chosen = images if only is None else [int(number) for number in only]
        if chosen is not None:
            loader_cfg["dataset"]["indices"] = chosen
        self.known_metrics = known_metrics(metric_cfg)
        with quiet_libraries(), config_mistakes(f"The {split} set"):
            self.loader = Runner.build_dataloader(loader_cfg)
            self.evaluator = Evaluator(copy.deepcopy(metric_cfg))
        self.evaluator.dataset_meta = self.loader.dataset.metainfo
        self.num_images = len(self.loader.dataset)
        if chosen is not None:
            self._score_only(self.image_ids())
        self._cache: list[Any] | None = [] if self._fits() else None

    def __call__(
        self, model: Any, reporter: Reporter = SILENT, description: str = "evaluate"
    ) -> dict[str, float]:
        """Metrics of a model as it is set now, such as ``bbox_mAP`` and ``segm_mAP``."""
        self._run(model, reporter, description)
        return self._metrics()

    def predictions(self, model: Any) -> list[list[Any]]:
        """What each metric keeps of the model's predictions, to be scored with others'."""
        self._run(model, SILENT, "evaluate")
        found = [metric.results for metric in self.evaluator.metrics]
        for metric in self.evaluator.metrics:
            metric.results = []
        return found

    def score(
        self, parts: Sequence[tuple[DetectorEvaluation, list[list[Any]]]]
    ) -> dict[str, float]:
        """Metrics of predictions that several evaluations of this config made, as of one.

        Args:
            parts: evaluations of different images, each with its predictions.
        """
        ids = [number for part, _ in parts for number in part.image_ids()]
        for index, metric in enumerate(self.evaluator.metrics):
            metric.results = [result for _, found in parts for result in found[index]]
        self._score_only(ids)
        return self._metrics(len(ids))

    def image_ids(self) -> list[int]:
        """Which images are scored, as their annotations number them."""
        dataset = self.loader.dataset
        return [dataset.get_data_info(i)["img_id"] for i in range(len(dataset))]

    def _run(self, model: Any, reporter: Reporter, description: str) -> None:
        was_training = model.training
        model.eval()
        with torch.no_grad(), reporter.task(description, len(self.loader)) as task:
            for batch in self._batches():
                with self.during_batch():
                    outputs = model.val_step(batch)
                    _to_fp32(outputs)
                    self.evaluator.process(data_samples=outputs, data_batch=batch)
                task.advance()
        model.train(was_training)

    def _metrics(self, images: int | None = None) -> dict[str, float]:
        with quiet_libraries(), self.during_batch():
            metrics = self.evaluator.evaluate(self.num_images if images is None else images)
        found = {k.rpartition("/")[2]: float(v) for k, v in metrics.items() if _is_number(v)}
        return {**self._nothing_detected(), **found}

    def _nothing_detected(self) -> dict[str, float]:
        """What a COCO metric leaves out where a model detects nothing at all."""
        kinds = [
            kind for metric in self.evaluator.metrics for kind in getattr(metric, "metrics", ())
        ]
        return {f"{kind}_mAP": 0.0 for kind in kinds if kind in ("bbox", "segm")}

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
        pixels = self.loader.dataset[0]["inputs"].numel()
        return pixels * self.num_images / dist.get_world_size() < CACHE_LIMIT_BYTES

    def _score_only(self, ids: list[int]) -> None:
        """COCO metrics count an image without predictions as missed: tell them which were shown."""
        for metric in self.evaluator.metrics:
            if hasattr(metric, "img_ids"):
                metric.img_ids = ids


def _to_fp32(samples: Sequence[Any]) -> None:
    """Metrics are computed in numpy, which knows no bf16, whatever a detector computed in."""
    for sample in samples:
        found = sample.get("pred_instances", {})
        for name, value in found.items():
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                found[name] = value.float()


def known_metrics(evaluator_cfg: Any) -> tuple[str, ...]:
    """Names of the metrics that an evaluator will give, as far as it is known before it runs.

    Args:
        evaluator_cfg: ``val_evaluator`` of a config.

    Returns:
        ``bbox_mAP``, ``bbox_mAP_50``, ... of one COCO metric of boxes and masks; nothing of others.
    """
    metrics = evaluator_cfg if isinstance(evaluator_cfg, (list, tuple)) else [evaluator_cfg]
    if len(metrics) != 1 or metrics[0].get("type") not in ("CocoMetric", "mmdet.CocoMetric"):
        return ()
    kinds = metrics[0].get("metric", "bbox")
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    if not set(kinds) <= {"bbox", "segm"} or metrics[0].get("metric_items"):
        return ()
    return tuple(f"{kind}_mAP{suffix}" for kind in kinds for suffix in _SUFFIXES)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and value == value
