"""Image classification as a task."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from sparsevit.ops.mmpretrain_import import import_mmpretrain
from sparsevit.tasks.base import LEAST_SCORE, Rows, Task
from sparsevit.tasks.classification import images, own

if TYPE_CHECKING:
    from sparsevit.data.own import Choice, OwnData
    from sparsevit.latency.backends.artefacts import Checked, Format
    from sparsevit.tasks.script import Finding

_NAMED = 5
"""Classes of an image that a prediction names, the likeliest first."""
_LISTED = 20
"""Classes that a table has at most; a record and ``--json`` have all."""
_DRAWN = 224
"""Shorter side of a drawn image, so that a line of text fits on it."""


class Classification(Task):
    """A class for each image: mmpretrain's classifiers, scored by top-1 and top-5 accuracy."""

    name = "classification"
    scope = "mmpretrain"
    whole = "classifier"
    visualizer = "UniversalVisualizer"
    metric = images.TOP1
    headlines: ClassVar[Mapping[str, str]] = images.HEADLINES
    points = 1.0
    own_template = "sparsevit::demo/classifier_swin_shapes.py"
    own_models: ClassVar[Mapping[str, str]] = {
        "tiny": "sparsevit::demo/classifier_swin_shapes.py",
        "small": "mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py",
        "base": "mmpretrain::swin_transformer/swin-small_16xb64_in1k.py",
    }
    own_batch = 4
    in_percent = frozenset(images.HEADLINES)
    models = frozenset({"ImageClassifier"})

    def registries(self) -> Any:
        """See :meth:`Task.registries`.

        Raises:
            UserError: mmpretrain is not installed.
        """
        import_mmpretrain()
        importlib.import_module("sparsevit.models.classification")
        return super().registries()

    def built(self, model: nn.Module) -> bool:
        if "mmpretrain.models" not in sys.modules:
            return False
        from mmpretrain.models import ImageClassifier

        return isinstance(model, ImageClassifier)

    # --- data and metrics -----------------------------------------------------------------------

    def check_data(
        self, cfg: Any, splits: Sequence[str], copies: Path | None = None
    ) -> tuple[str, ...]:
        return images.check_data(cfg, splits, copies)

    def fit_data(self, cfg: Any, data: OwnData, files: Mapping[str, Path]) -> None:
        own.fit_data(cfg, data, files)

    def suit(self, cfg: Any, data: OwnData, most: int) -> tuple[tuple[int, int], list[Choice]]:
        return own.suit(cfg, data, most)

    def known_metrics(self, evaluator: Any) -> tuple[str, ...]:
        return images.known_metrics(evaluator)

    def nothing_found(self, metric: Any) -> dict[str, float]:
        return {}

    def scores_parts(self, metrics: Sequence[Any]) -> bool:
        from mmpretrain.evaluation import Accuracy

        # it counts images; another metric may want all of them
        return all(type(metric) is Accuracy for metric in metrics)

    def image_id(self, info: Mapping[str, Any]) -> Hashable:
        path: Hashable = info["img_path"]
        return path

    def score_classes(self, metrics: Sequence[Any]) -> None:
        for metric in metrics:
            images.score_classes(metric)

    def class_scores(self, metrics: Sequence[Any]) -> dict[str, dict[str, float]]:
        return images.class_scores(metrics)

    def class_table(
        self, classes: Mapping[str, Mapping[str, float]]
    ) -> tuple[tuple[str, ...], Rows]:
        """See :meth:`Task.class_table`; of many classes the weakest."""
        top1 = classes[images.TOP1]
        if len(top1) <= _LISTED:
            return super().class_table(classes)
        known = [name for name, score in top1.items() if score == score]
        weakest = sorted(known, key=lambda name: top1[name])[:_LISTED]
        columns, rows = super().class_table({images.TOP1: {name: top1[name] for name in weakest}})
        return (f"class, the {len(weakest)} lowest of {len(top1)}", *columns[1:]), rows

    def score_only(self, metrics: Sequence[Any], ids: Sequence[Any]) -> None:
        """Nothing to tell: an image that a metric was not shown does not count."""

    def to_fp32(self, samples: Sequence[Any]) -> None:
        for sample in samples:
            if "pred_score" in sample:
                sample.set_pred_score(sample.pred_score.float())

    def table(self, metrics: Mapping[str, float]) -> tuple[tuple[str, ...], Rows]:
        cells = (self.shown(name, metrics.get(name)) for name in self.headlines)
        return ("", *self.headlines.values()), [("images", *cells)]

    # --- predictions ----------------------------------------------------------------------------

    def to_json(self, sample: Any) -> list[dict[str, Any]]:
        scores, labels = sample.pred_score.topk(min(_NAMED, len(sample.pred_score)))
        return [
            {"image": sample.metainfo.get("img_path"), "label": label, "score": score}
            for label, score in zip(labels.tolist(), scores.tolist(), strict=True)
        ]

    def draw(
        self,
        sample: Any,
        pixels: Any,
        out: Path,
        meta: Mapping[str, Any],
        least: float = LEAST_SCORE,
    ) -> Path:
        from mmpretrain.visualization import UniversalVisualizer

        UniversalVisualizer().visualize_cls(
            *(pixels, sample), classes=meta.get("classes"), resize=_DRAWN, out_file=str(out)
        )
        return out

    def palette(self, classes: int) -> list[tuple[int, int, int]]:
        from mmdet.visualization import get_palette

        return [(int(r), int(g), int(b)) for r, g, b in get_palette("random", classes)]

    # --- what is timed --------------------------------------------------------------------------

    def batch_of(self, pixels: Tensor) -> dict[str, Any]:
        from mmpretrain.structures import DataSample

        shape = tuple(pixels.shape[-2:])
        info = {"img_shape": shape, "ori_shape": shape}
        samples = [DataSample(metainfo={**info, "img_path": str(i)}) for i in range(len(pixels))]
        return {"inputs": list(pixels), "data_samples": samples}

    # --- a whole classifier in a backend or a file ----------------------------------------------

    def prepare(
        self, backend: str, model: nn.Module, images: Tensor, precision: str, device: torch.device
    ) -> Any:
        from sparsevit.tasks.classification.backends import prepare_classifier

        return prepare_classifier(backend, model, images, precision, device)

    def write_checked(
        self, form: Format[Any], model: nn.Module, shape: tuple[int, ...], target: Path
    ) -> Checked:
        from sparsevit.tasks.classification.backends import write_classifier

        return write_classifier(form, model, shape, target)

    def describe_export(self, cfg: Any, model: nn.Module, batch_size: int) -> dict[str, Any]:
        from sparsevit.tasks.classification.backends import described

        return described(self.class_names(cfg), model)

    def finding(self, model: nn.Module, described: Mapping[str, Any]) -> Finding:
        from sparsevit.tasks.classification.script import finding

        return finding(model, described)
