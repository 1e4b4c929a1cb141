"""The interface of a task: all that phases, search, latency and reports know of a problem."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from sparsevit.errors import UserError

if TYPE_CHECKING:
    from sparsevit.data.own import Choice, OwnData
    from sparsevit.latency.backends.artefacts import Checked, Format
    from sparsevit.latency.backends.registry import Backend
    from sparsevit.tasks.script import Finding

OURS = "sparsevit"
"""Scope of what inherits from a config of ours; it says nothing of the task."""

Rows = list[tuple[str, ...]]

LEAST_SCORE = 0.3
"""From which objects are drawn, as mmdet has it."""


def shown(value: float | None, decimals: int = 3) -> str:
    """``0.512``; ``-`` for what the data cannot give."""
    return "-" if value is None or not value >= 0 else f"{value:.{decimals}f}"


class Task(ABC):
    """One kind of problem. It holds no state: a model, a batch or a config is always given.

    Attributes:
        name: for people and records, such as ``detection``, and of the task's folder.
        scope: mmengine's scope of its library, whose registries are in ``<scope>.registry``.
        whole: what ``--scope`` calls a whole model of it, such as ``detector``.
        visualizer: type of mmengine's visualizer in training.
        backbone: where in a model its backbone is: a dotted name.
        metric: the headline metric that is maximised where none is named.
        headlines: headline metrics, the most telling first -> what tables call them.
        points: what a metric is multiplied by to be in points, 0 to 100.
        own_template: the config whose schedule a user's own data is trained with.
        own_models: what ``--model`` calls a model -> the config that has it.
        own_batch: how many times as many images as of a detector are in a batch of own data.
        in_percent: metrics that are in points already.
        models: types of its models, where its library has those of another task too; empty for all
            of the library.
        views: images that a sample has: those that a backbone is given of it.
        channels: order of the colours that data loaders give.
    """

    name: ClassVar[str]
    scope: ClassVar[str]
    whole: ClassVar[str]
    visualizer: ClassVar[str]
    backbone: ClassVar[str] = "backbone"
    metric: ClassVar[str]
    headlines: ClassVar[Mapping[str, str]]
    points: ClassVar[float]
    own_template: ClassVar[str] = ""
    own_models: ClassVar[Mapping[str, str]] = {}
    own_batch: ClassVar[int] = 1
    in_percent: ClassVar[frozenset[str]] = frozenset()
    models: ClassVar[frozenset[str]] = frozenset()
    views: ClassVar[int] = 1
    channels: ClassVar[str] = "BGR"

    @property
    def whole_key(self) -> str:
        """:attr:`whole` as a part of names in records."""
        return self.whole.replace("-", "_")

    # --- models ---------------------------------------------------------------------------------

    def takes(self, model_type: Any, default_scope: str | None) -> bool:
        """Whether a config is of this task.

        Args:
            model_type: ``type`` of its model: a name, with a scope before a dot or without, or a
                class.
            default_scope: of the config.
        """
        name = getattr(model_type, "__name__", str(model_type).rpartition(".")[2])
        if self.models and name not in self.models:
            return False
        if isinstance(model_type, type):
            origin = model_type.__module__.split(".")[0]
            return origin == self.scope or (bool(self.models) and origin == OURS)
        scope, dot, _ = str(model_type).partition(".")
        said = scope if dot else default_scope
        if said is not None and said != OURS:
            return said == self.scope
        if self.models:
            return True
        kind = str(model_type).removeprefix(f"{OURS}.")
        try:
            return bool(kind) and self.registries().MODELS.get(kind) is not None
        except UserError:
            return False  # its library is not installed

    @abstractmethod
    def built(self, model: nn.Module) -> bool:
        """Whether a model is one of this task."""

    def registries(self) -> Any:
        """The module with the registries of the task's library: ``MODELS``, ``DATASETS`` ..."""
        return importlib.import_module(f"{self.scope}.registry")

    def build(self, model_cfg: Any) -> nn.Module:
        """A model from ``model`` of a config, its weights not initialised."""
        model: nn.Module = self.registries().MODELS.build(model_cfg)
        return model

    def backbone_of(self, model: nn.Module) -> nn.Module:
        """The part of a model that makes feature maps of images."""
        return model.get_submodule(self.backbone)

    def require_scope(self, scope: str) -> None:
        """Refuse what ``--scope`` calls a whole model of another task.

        Raises:
            UserError: it is one.
        """
        if scope not in ("backbone", self.whole):
            raise UserError(
                f"--scope {scope} is for another kind of model: this config has a {self.whole}.",
                f"Use --scope {self.whole}, or --scope backbone.",
            )

    # --- data and metrics -----------------------------------------------------------------------

    @abstractmethod
    def check_data(
        self, cfg: Any, splits: Sequence[str], copies: Path | None = None
    ) -> tuple[str, ...]:
        """Refuse datasets that a run would stumble over, and a config that does not fit its data.

        Args:
            cfg: the config.
            splits: of ``train``, ``val``, ``test``; one that the config has not is passed over.
            copies: leave broken images out rather than refuse them: a folder for descriptions of
                the data without them, to which ``cfg`` is pointed. None: refuse.

        Returns:
            A sentence for each dataset of which images are left out.

        Raises:
            UserError: something of the data is missing, broken or does not fit; it names the key
                to change.
        """

    @abstractmethod
    def fit_data(self, cfg: Any, data: OwnData, files: Mapping[str, Path]) -> None:
        """Point any config of this task to a user's own data: datasets, evaluators, classes.

        Args:
            cfg: changed. Its pipelines stay, but for what the data has not.
            data: what there is.
            files: split -> the annotation file, or the list of names, to use.

        Raises:
            UserError: the model needs what the data has not.
        """

    @abstractmethod
    def suit(self, cfg: Any, data: OwnData, most: int) -> tuple[tuple[int, int], list[Choice]]:
        """Choose what follows from a user's own data for a model of :attr:`own_models`.

        Args:
            cfg: that :meth:`fit_data` has fitted; changed.
            data: what there is.
            most: longest side of an image that this machine should train with, in pixels.

        Returns:
            (width, height) of the images, and what was chosen.
        """

    @abstractmethod
    def known_metrics(self, evaluator: Any) -> tuple[str, ...]:
        """Names of the metrics that an evaluator will give; empty where that is not known.

        Args:
            evaluator: ``val_evaluator`` of a config.
        """

    @abstractmethod
    def nothing_found(self, metric: Any) -> dict[str, float]:
        """What a metric of mmengine leaves out where a model finds nothing at all."""

    @abstractmethod
    def scores_parts(self, metrics: Sequence[Any]) -> bool:
        """Whether these metrics of mmengine can be computed on some of the images alone."""

    @abstractmethod
    def image_id(self, info: Mapping[str, Any]) -> Hashable:
        """What names an image in the metrics, from ``get_data_info`` of a dataset."""

    @abstractmethod
    def score_only(self, metrics: Sequence[Any], ids: Sequence[Any]) -> None:
        """Have metrics of mmengine count these images, by :meth:`image_id`, and no others."""

    def score_classes(self, metrics: Sequence[Any]) -> None:
        """Have metrics of mmengine score every class by itself too, those that can."""
        return None

    def class_scores(self, metrics: Sequence[Any]) -> dict[str, dict[str, float]]:
        """What :meth:`score_classes` had metrics find last: metric -> class -> value."""
        return {}

    @abstractmethod
    def to_fp32(self, samples: Sequence[Any]) -> None:
        """Turn predictions in data samples to fp32: metrics are computed in numpy, which does not
        know bf16."""

    def in_points(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Metrics in points, without those that the data cannot give."""
        return {name: self.points * value for name, value in metrics.items()}

    def shown(self, metric: str, value: float | None) -> str:
        """A metric in a table: ``0.512``, in percent ``51.23``; ``-`` for what the data cannot
        give."""
        return shown(value, 2 if metric in self.in_percent else 3)

    def figure(self, metric: str) -> str:
        """What a headline is called among a run's figures, beside latencies."""
        return metric

    @abstractmethod
    def table(self, metrics: Mapping[str, float]) -> tuple[tuple[str, ...], Rows]:
        """Columns and rows of a table of all metrics; the first column names the row."""

    def class_table(
        self, classes: Mapping[str, Mapping[str, float]]
    ) -> tuple[tuple[str, ...], Rows]:
        """Columns and rows of a table of :meth:`class_scores`, a row a class."""
        names = dict.fromkeys(name for found in classes.values() for name in found)
        rows = [
            (name, *(self.shown(metric, of.get(name)) for metric, of in classes.items()))
            for name in names
        ]
        return ("class", *(self.headlines.get(metric, metric) for metric in classes)), rows

    # --- predictions ----------------------------------------------------------------------------

    @abstractmethod
    def to_json(self, sample: Any) -> list[dict[str, Any]]:
        """What is predicted in a data sample, as plain data."""

    @abstractmethod
    def draw(
        self,
        sample: Any,
        pixels: Any,
        out: Path,
        meta: Mapping[str, Any],
        least: float = LEAST_SCORE,
    ) -> Path:
        """Draw what is predicted.

        Args:
            sample: a data sample with predictions.
            pixels: (H, W, 3) uint8 RGB.
            out: the PNG to write.
            meta: ``metainfo`` of the dataset.
            least: objects are drawn from this score.
        """

    @abstractmethod
    def palette(self, classes: int) -> list[tuple[int, int, int]]:
        """A colour for each class in drawings: RGB, 0 to 255; always the same."""

    # --- what is timed --------------------------------------------------------------------------

    def fixed_size(self, cfg: Any) -> tuple[int, int] | None:
        """(height, width) of the only images that a config's model takes; None where others do."""
        return None

    def pixels_of(self, inputs: Any) -> Any:
        """The images (..., 3, H, W) of what a sample, or a batch, has as ``inputs``."""
        return inputs

    def random_images(self, batch_size: int, img_size: tuple[int, int]) -> Tensor:
        """What a backbone takes: (B * views, 3, H, W) noise, the same at every call.

        Noise rather than zeros: with zeros every window scores the same, and hardware that notices
        zeros runs faster than it does on images.
        """
        generator = torch.Generator().manual_seed(0)
        return torch.randn(batch_size * self.views, 3, *img_size, generator=generator)

    @abstractmethod
    def batch_of(self, pixels: Tensor) -> dict[str, Any]:
        """What a data loader would give a model's ``test_step`` of images.

        Args:
            pixels: (B * views, 3, H, W) uint8.
        """

    def batch_from(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The same of samples of a dataset, whose images have one size."""
        return self.batch_of(torch.stack([sample["inputs"] for sample in samples]))

    def random_batch(self, batch_size: int, img_size: tuple[int, int]) -> dict[str, Any]:
        """What a data loader would give a model's ``test_step``, of random pixels."""
        generator = torch.Generator().manual_seed(0)
        shape = (batch_size * self.views, 3, *img_size)
        pixels = torch.randint(0, 256, shape, generator=generator)
        return self.batch_of(pixels.to(torch.uint8))

    # --- a whole model in a backend or a file ---------------------------------------------------

    def _execution(self) -> Any:
        """The module ``backends`` of the task's folder, which takes long to import."""
        return importlib.import_module(f"{__package__}.{self.name}.backends")

    def backends(self) -> Mapping[str, Backend[Any]]:
        """What executes a whole model, by name."""
        found: Mapping[str, Backend[Any]] = self._execution().BACKENDS
        return found

    @abstractmethod
    def prepare(
        self, backend: str, model: nn.Module, images: Tensor, precision: str, device: torch.device
    ) -> Any:
        """Make a whole model ready to run in a backend, at the sparsity that it is set to now.

        Args:
            backend: one of :meth:`backends`.
            model: in evaluation mode, on ``device``.
            images: what its ``data_preprocessor`` makes of a batch.
            precision: one of :data:`sparsevit.latency.backends.PRECISIONS`.

        Raises:
            UserError: the backend cannot be had here, or not for this model.
        """

    def as_step(self, model: nn.Module, run: Any) -> Callable[[dict[str, Any]], list[Any]]:
        """In place of a model's ``test_step`` and ``val_step``: run by what :meth:`prepare` made.

        Args:
            model: its ``data_preprocessor`` makes a batch ready.
            run: it must take the images that a batch becomes.
        """
        step: Callable[[dict[str, Any]], list[Any]] = self._execution().as_test_step(model, run)
        return step

    def formats(self) -> Mapping[str, Format[Any]]:
        """The files in which a whole model is written, by name."""
        found: Mapping[str, Format[Any]] = self._execution().FORMATS
        return found

    @abstractmethod
    def write_checked(
        self, form: Format[Any], model: nn.Module, shape: tuple[int, ...], target: Path
    ) -> Checked:
        """Write a whole model, and keep the file if it finds what eager PyTorch finds.

        Args:
            form: one of :meth:`formats`.
            model: on the CPU, at the sparsity to write.
            shape: (B * views, 3, H, W) of images.
            target: file to write.

        Raises:
            UserError: they differ, the model is of a kind that is not known, or the file cannot be
                written.
        """

    @abstractmethod
    def describe_export(self, cfg: Any, model: nn.Module, batch_size: int) -> dict[str, Any]:
        """What the description beside a whole model's file says more than a backbone's."""

    @abstractmethod
    def finding(self, model: nn.Module, described: Mapping[str, Any]) -> Finding:
        """The part of the script beside a whole model's file that turns outputs into results.

        Args:
            model: that was written.
            described: the description of the file.

        Raises:
            NoScript: a script could not find what the model finds.
        """

    def metainfo(self, cfg: Any) -> dict[str, Any]:
        """What a config says of its data without loading it: ``classes``, ``palette`` and more,
        as its datasets name them, or their type does; what is not known is not there."""
        for split in ("test", "val", "train"):
            described = (cfg.get(f"{split}_dataloader") or {}).get("dataset") or {}
            while inner := described.get("dataset") or (described.get("datasets") or [None])[0]:
                described = inner
            kind = described.get("type")
            if isinstance(kind, str):
                kind = self.registries().DATASETS.get(kind)
            own = dict(described.get("metainfo") or cfg.get("metainfo") or {})
            # a palette of the type's is of the type's classes
            found = own if own.get("classes") else {**getattr(kind, "METAINFO", {}), **own}
            if isinstance(found.get("classes"), (list, tuple)):
                return found
        classes = cfg.get("classes")
        return {"classes": classes} if isinstance(classes, (list, tuple)) else {}

    def class_names(self, cfg: Any) -> list[str] | None:
        """The classes of :meth:`metainfo`, None where they are not known."""
        classes = self.metainfo(cfg).get("classes")
        return None if classes is None else [str(name) for name in classes]
