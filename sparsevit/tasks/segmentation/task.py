"""Semantic segmentation as a task."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from sparsevit.errors import UserError
from sparsevit.tasks.base import LEAST_SCORE, Rows, Task
from sparsevit.tasks.segmentation import labels, own

if TYPE_CHECKING:
    from sparsevit.data.own import Choice, OwnData
    from sparsevit.latency.backends.artefacts import Checked, Format
    from sparsevit.tasks.script import Finding


class Segmentation(Task):
    """A class for each pixel: mmseg's segmentors, scored by the mean IoU of the classes."""

    name = "segmentation"
    scope = "mmseg"
    whole = "segmentor"
    visualizer = "SegLocalVisualizer"
    metric = labels.MEAN_IOU
    headlines: ClassVar[Mapping[str, str]] = {labels.MEAN_IOU: "mIoU"}
    points = 1.0
    own_template = "sparsevit::demo/upernet_swin_shapes.py"
    own_models: ClassVar[Mapping[str, str]] = {
        "tiny": "sparsevit::demo/upernet_swin_shapes.py",
        "small": "sparsevit::swin/upernet_swin-t_ade20k.py",
        "base": "mmseg::swin/swin-small-patch4-window7-in1k-pre_upernet_8xb2-160k_"
        "ade20k-512x512.py",
    }
    in_percent = labels.METRICS

    def registries(self) -> Any:
        """See :meth:`Task.registries`.

        Raises:
            UserError: mmsegmentation is not installed.
        """
        try:
            with labels.imports_in_silence():
                import mmseg.datasets
                import mmseg.models  # noqa: F401
        except ImportError as error:
            raise UserError(
                f"Segmentation needs mmsegmentation, which is not installed ({error}).",
                "Install it: pip install 'sparsevit[all]'.",
            ) from error
        return super().registries()

    def built(self, model: nn.Module) -> bool:
        if "mmseg.models" not in sys.modules:
            return False
        from mmseg.models import BaseSegmentor

        return isinstance(model, BaseSegmentor)

    # --- data and metrics -----------------------------------------------------------------------

    def check_data(
        self, cfg: Any, splits: Sequence[str], copies: Path | None = None
    ) -> tuple[str, ...]:
        return labels.check_data(cfg, splits, copies)

    def fit_data(self, cfg: Any, data: OwnData, files: Mapping[str, Path]) -> None:
        own.fit_data(cfg, data, files, self.palette(len(data.classes)))

    def suit(self, cfg: Any, data: OwnData, most: int) -> tuple[tuple[int, int], list[Choice]]:
        return own.suit(cfg, data, most)

    def known_metrics(self, evaluator: Any) -> tuple[str, ...]:
        return labels.known_metrics(evaluator)

    def nothing_found(self, metric: Any) -> dict[str, float]:
        return {}

    def scores_parts(self, metrics: Sequence[Any]) -> bool:
        from mmseg.evaluation import IoUMetric

        # it adds up pixels; another metric may want all images
        return all(isinstance(metric, IoUMetric) for metric in metrics)

    def image_id(self, info: Mapping[str, Any]) -> Hashable:
        path: Hashable = info["img_path"]
        return path

    def score_only(self, metrics: Sequence[Any], ids: Sequence[Any]) -> None:
        """Nothing to tell: an image that a metric was not shown does not count."""

    def score_classes(self, metrics: Sequence[Any]) -> None:
        for metric in metrics:
            labels.score_classes(metric)

    def class_scores(self, metrics: Sequence[Any]) -> dict[str, dict[str, float]]:
        return labels.class_scores(metrics)

    def to_fp32(self, samples: Sequence[Any]) -> None:
        for sample in samples:
            logits = sample.get("seg_logits")
            if logits is not None and logits.data.is_floating_point():
                logits.data = logits.data.float()

    def table(self, metrics: Mapping[str, float]) -> tuple[tuple[str, ...], Rows]:
        return labels.table(metrics)

    def class_table(
        self, classes: Mapping[str, Mapping[str, float]]
    ) -> tuple[tuple[str, ...], Rows]:
        columns, rows = super().class_table(classes)
        # of one class it is no mean
        return tuple(heading.removeprefix("m") for heading in columns), rows

    # --- predictions ----------------------------------------------------------------------------

    def to_json(self, sample: Any) -> list[dict[str, Any]]:
        return labels.regions(sample)

    def draw(
        self,
        sample: Any,
        pixels: Any,
        out: Path,
        meta: Mapping[str, Any],
        least: float = LEAST_SCORE,
    ) -> Path:
        from mmseg.visualization import SegLocalVisualizer

        visualizer = SegLocalVisualizer(alpha=0.6)
        visualizer.dataset_meta = dict(meta)
        visualizer.add_datasample(
            *(out.stem, pixels, sample), draw_gt=False, with_labels=True, out_file=str(out)
        )
        return out

    def palette(self, classes: int) -> list[tuple[int, int, int]]:
        from mmdet.visualization import get_palette

        return [(int(r), int(g), int(b)) for r, g, b in get_palette("random", classes)]

    # --- what is timed --------------------------------------------------------------------------

    def batch_of(self, pixels: Tensor) -> dict[str, Any]:
        from mmseg.structures import SegDataSample

        shape = tuple(pixels.shape[-2:])
        info: dict[str, Any] = {"img_shape": shape, "ori_shape": shape, "pad_shape": shape}
        info["scale_factor"] = (1.0, 1.0)
        samples = [SegDataSample(metainfo={**info, "img_path": str(i)}) for i in range(len(pixels))]
        return {"inputs": list(pixels), "data_samples": samples}

    # --- a whole segmentor in a backend or a file -----------------------------------------------

    def prepare(
        self, backend: str, model: nn.Module, images: Tensor, precision: str, device: torch.device
    ) -> Any:
        from sparsevit.tasks.segmentation.backends import prepare_segmentor

        return prepare_segmentor(backend, model, images, precision, device)

    def write_checked(
        self, form: Format[Any], model: nn.Module, shape: tuple[int, ...], target: Path
    ) -> Checked:
        from sparsevit.tasks.segmentation.export import write_segmentor

        return write_segmentor(form, model, shape, target)

    def describe_export(self, cfg: Any, model: nn.Module, batch_size: int) -> dict[str, Any]:
        from sparsevit.tasks.segmentation.export import described

        return described(self.class_names(cfg), model)

    def finding(self, model: nn.Module, described: Mapping[str, Any]) -> Finding:
        from sparsevit.tasks.segmentation.script import finding

        return finding(model, described)
