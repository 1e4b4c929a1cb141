"""Metrics of a model, as often as a search wants them."""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from numbers import Real
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
from sparsevit.tasks import Task, task_of

CACHE_LIMIT_BYTES = 1 << 30

# Looking for the sizes of images ends after so many different ones, and after so many images.
_MOST_SIZES = 4
_MOST_LOOKS = 1000


class Evaluation:
    """The validation set of a config, ready to score a model again and again.

    Batches are kept in memory where they fit, so that a search decodes its images once.

    Args:
        cfg: of a task; its ``val_dataloader`` and ``val_evaluator`` are used, or else those of
            ``test``.
        images: score the first N images only; all where None, or where there are fewer.
        batch_size: images a batch; the config's where None.
        only: numbers of the images to score instead of the first N.
        split: ``val`` or ``test``; None for val, or test where there is no val.
        by_class: also score every class by itself, where the metrics can.

    Attributes:
        split: that is scored.
        during_batch: entered around the work on each batch and on the metrics.

    Raises:
        UserError: the config has no such set.
    """

    def __init__(
        self,
        cfg: Config,
        images: int | None = None,
        batch_size: int | None = None,
        only: Sequence[int] | None = None,
        split: str | None = None,
        by_class: bool = False,
    ) -> None:
        self.during_batch: Callable[[], AbstractContextManager[None]] = nullcontext
        self._task = task = task_of(cfg)
        init_default_scope(cfg.get("default_scope", task.scope))
        self._cfg = cfg
        self.split = split = split_of(cfg, split)
        loader_cfg, metric_cfg = cfg.get(f"{split}_dataloader"), cfg.get(f"{split}_evaluator")
        loader_cfg = copy.deepcopy(loader_cfg)
        if batch_size is not None:
            loader_cfg["batch_size"] = batch_size
        chosen = images if only is None else [int(number) for number in only]
        if chosen is not None:
            loader_cfg["dataset"]["indices"] = chosen
        with quiet_libraries(), self._mistakes():
            self.loader = Runner.build_dataloader(loader_cfg)
            name_broken_images(self.loader.dataset)
            self.evaluator = Evaluator(copy.deepcopy(metric_cfg))
            for metric in self.evaluator.metrics:
                # over the process group, gloo too: not by files in the working directory
                metric.collect_device = "gpu"
            self.known_metrics = task.known_metrics(metric_cfg)
            self.evaluator.dataset_meta = self.loader.dataset.metainfo
            self.num_images = len(self.loader.dataset)
            if by_class:
                task.score_classes(self.evaluator.metrics)
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

    def classes(self) -> dict[str, dict[str, float]]:
        """What the last call found of every class: metric -> class -> value; in the first process,
        and of metrics that can."""
        return self._task.class_scores(self.evaluator.metrics)

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

    def image_sizes(self, model: Any) -> frozenset[tuple[int, int]]:
        """(height, width) of what the model may be given of these images, padded as batches are;
        nothing where they have many sizes, or sizes that cannot be told.

        Every size that annotations name is put through the pipeline once.
        """
        fixed = self._task.fixed_size(self._cfg)
        if fixed is not None:
            return frozenset([fixed])
        dataset, shapes, kinds = self.loader.dataset, set(), set()
        for number in range(len(dataset)):
            info = dataset.get_data_info(number)
            kind = (info.get("height", number), info.get("width"))
            if kind in kinds:
                continue
            kinds.add(kind)
            sample = dataset[number]
            pixels = sample.get("inputs") if isinstance(sample, dict) else None
            if not isinstance(pixels, torch.Tensor) or pixels.ndim != 3:
                return frozenset()
            shapes.add(tuple(pixels.shape[-2:]))
            if len(shapes) > _MOST_SIZES or len(kinds) > _MOST_LOOKS:
                return frozenset()
        # a batch is as high as its highest image and as wide as its widest
        sides = zip(*shapes, strict=True)
        sizes = itertools.product(*map(set, sides)) if shapes else ()
        return frozenset(given_size(self._task, model, size) for size in sizes)

    def _run(self, model: Any, reporter: Reporter, description: str) -> None:
        was_training = model.training
        model.eval()
        now: Any = None

        def images() -> str:
            paths = [getattr(sample, "img_path", None) for sample in now["data_samples"]]
            return ", ".join(str(path) for path in paths if path) or "a batch"

        with (
            self._mistakes(),
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
        with quiet_libraries(), self._mistakes(), self.during_batch():
            metrics = self.evaluator.evaluate(self.num_images if images is None else images)
        for name, value in metrics.items():
            if value != value and name.rpartition("/")[2] in self._task.headlines:
                raise RunFailed(
                    f"The metric {name} is not a number (NaN).",
                    "Look at the weights, the precision and the annotations.",
                )
        found = {name: float(value) for name, value in metrics.items() if _is_number(value)}
        return _short_names({**self._nothing_found(), **found})

    def _mistakes(self) -> AbstractContextManager[None]:
        return config_mistakes(self._cfg, f"The {self.split} set", self.split)

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


SPLITS = ("val", "test")


def split_of(cfg: Config, split: str | None = None) -> str:
    """The split of a config that is scored where this one is asked for.

    Args:
        cfg: of a task.
        split: ``val`` or ``test``; None for val, or test where there is no val.

    Raises:
        UserError: the config has no such split; it says which it has.
    """
    has = [name for name in SPLITS if cfg.get(f"{name}_dataloader")]
    chosen = split or (has or SPLITS)[0]
    missing = [part for part in ("dataloader", "evaluator") if not cfg.get(f"{chosen}_{part}")]
    if split is not None and split not in SPLITS:
        raise UserError(f"{split!r} is not a split to evaluate on.", f"Use {' or '.join(SPLITS)}.")
    if not missing:
        return chosen
    if split is None:
        raise UserError(
            "The config has no validation set.",
            "Add val_dataloader and val_evaluator (or test_dataloader and test_evaluator).",
        )
    others = [n for n in SPLITS if n != chosen and cfg.get(f"{n}_dataloader")]
    needed = " and ".join(f"{chosen}_{part}" for part in missing)
    raise UserError(
        f"The config has no {chosen} split: it sets no {needed}.",
        f"Add {needed} to the config"
        + (f", or evaluate on its other split: --split {others[0]}." if others else "."),
    )


def given_size(task: Task, model: Any, img_size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of what a model is given of images of a size: it may pad them."""
    batch = model.data_preprocessor(task.random_batch(1, img_size), False)
    height, width = task.pixels_of(batch["inputs"]).shape[-2:]
    return int(height), int(width)


def _short_names(metrics: Mapping[str, float]) -> dict[str, float]:
    """Names without the prefix of their metric, where that leaves each a name of its own."""
    counts = Counter(name.rpartition("/")[2] for name in metrics)
    return {
        name if counts[short] > 1 else short: value
        for name, value in metrics.items()
        for short in [name.rpartition("/")[2]]
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and value == value
