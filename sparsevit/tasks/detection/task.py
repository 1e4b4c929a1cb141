"""Detection as a task."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from sparsevit.tasks.base import LEAST_SCORE, Rows, Task
from sparsevit.tasks.detection import checks, coco, own

if TYPE_CHECKING:
    from sparsevit.data.own import Choice, OwnData
    from sparsevit.latency.backends.artefacts import Checked, Format
    from sparsevit.tasks.script import Finding


class Detection(Task):
    """Objects in images: mmdet's detectors, scored by COCO's AP."""

    name = "detection"
    scope = "mmdet"
    whole = "detector"
    visualizer = "DetLocalVisualizer"
    metric = coco.BOX_AP
    headlines: ClassVar[Mapping[str, str]] = {coco.BOX_AP: "bbox AP", coco.MASK_AP: "mask AP"}
    points = 100.0
    own_template = "sparsevit::demo/mask_rcnn_swin_shapes.py"
    own_models: ClassVar[Mapping[str, str]] = {
        "tiny": "sparsevit::demo/mask_rcnn_swin_shapes.py",
        "small": "sparsevit::swin/mask_rcnn_swin-t_1x.py",
        "base": "sparsevit::swin/mask_rcnn_swin-s_3x.py",
    }

    def built(self, model: nn.Module) -> bool:
        from mmdet.models import BaseDetector

        return isinstance(model, BaseDetector)

    # --- data and metrics -----------------------------------------------------------------------

    def check_data(
        self, cfg: Any, splits: Sequence[str], copies: Path | None = None
    ) -> tuple[str, ...]:
        return checks.check_data(cfg, splits, copies)

    def fit_data(self, cfg: Any, data: OwnData, files: Mapping[str, Path]) -> None:
        own.fit_data(cfg, data, files, self.palette(len(data.classes)))

    def suit(self, cfg: Any, data: OwnData, most: int) -> tuple[tuple[int, int], list[Choice]]:
        return own.suit(cfg, data, most)

    def known_metrics(self, evaluator: Any) -> tuple[str, ...]:
        return coco.known_metrics(evaluator)

    def nothing_found(self, metric: Any) -> dict[str, float]:
        return coco.nothing_detected(metric)

    def scores_parts(self, metrics: Sequence[Any]) -> bool:
        from mmdet.evaluation import CocoPanopticMetric

        # it matches what was found with all annotations of its file
        return not any(isinstance(metric, CocoPanopticMetric) for metric in metrics)

    def image_id(self, info: Mapping[str, Any]) -> Hashable:
        number: Hashable = info["img_id"]
        return number

    def score_only(self, metrics: Sequence[Any], ids: Sequence[Any]) -> None:
        # COCO metrics count an image without predictions as missed: tell them which were shown
        for metric in metrics:
            if hasattr(metric, "img_ids"):
                metric.img_ids = list(ids)

    def score_classes(self, metrics: Sequence[Any]) -> None:
        for metric in metrics:
            coco.score_classes(metric)

    def class_scores(self, metrics: Sequence[Any]) -> dict[str, dict[str, float]]:
        return coco.class_scores(metrics)

    def to_fp32(self, samples: Sequence[Any]) -> None:
        for sample in samples:
            found = sample.get("pred_instances", {})
            for name, value in found.items():
                if isinstance(value, Tensor) and value.is_floating_point():
                    found[name] = value.float()

    def in_points(self, metrics: Mapping[str, float]) -> dict[str, float]:
        # COCO gives -1 where no object is of that size
        return super().in_points({name: value for name, value in metrics.items() if value >= 0})

    def figure(self, metric: str) -> str:
        return metric.replace("mAP", "ap")

    def table(self, metrics: Mapping[str, float]) -> tuple[tuple[str, ...], Rows]:
        return coco.table(metrics)

    # --- predictions ----------------------------------------------------------------------------

    def to_json(self, sample: Any) -> list[dict[str, Any]]:
        from sparsevit.tasks.detection.detections import coco_results

        return coco_results(sample)

    def draw(
        self,
        sample: Any,
        pixels: Any,
        out: Path,
        meta: Mapping[str, Any],
        least: float = LEAST_SCORE,
    ) -> Path:
        from mmdet.visualization import DetLocalVisualizer

        visualizer = DetLocalVisualizer()
        visualizer.dataset_meta = dict(meta)
        visualizer.add_datasample(
            *(out.stem, pixels, sample), draw_gt=False, pred_score_thr=least, out_file=str(out)
        )
        return out

    def palette(self, classes: int) -> list[tuple[int, int, int]]:
        from mmdet.visualization import get_palette

        return [(int(r), int(g), int(b)) for r, g, b in get_palette("random", classes)]

    # --- what is timed --------------------------------------------------------------------------

    def batch_of(self, pixels: Tensor) -> dict[str, Any]:
        from mmdet.structures import DetDataSample

        shape = tuple(pixels.shape[-2:])
        samples = []
        for index in range(len(pixels)):
            info = {"img_id": index, "img_shape": shape, "ori_shape": shape}
            samples.append(DetDataSample(metainfo={**info, "scale_factor": (1.0, 1.0)}))
        return {"inputs": list(pixels), "data_samples": samples}

    # --- a whole detector in a backend or a file ------------------------------------------------

    def prepare(
        self, backend: str, model: nn.Module, images: Tensor, precision: str, device: torch.device
    ) -> Any:
        from sparsevit.tasks.detection.backends import prepare_detector

        return prepare_detector(backend, model, images, precision, device)

    def write_checked(
        self, form: Format[Any], model: nn.Module, shape: tuple[int, ...], target: Path
    ) -> Checked:
        from sparsevit.tasks.detection.export import write_detector

        return write_detector(form, model, shape, target)

    def describe_export(self, cfg: Any, model: nn.Module, batch_size: int) -> dict[str, Any]:
        from sparsevit.tasks.detection.export import described

        return described(self.class_names(cfg), model, batch_size)

    def finding(self, model: nn.Module, described: Mapping[str, Any]) -> Finding:
        from sparsevit.tasks.detection.script import finding

        return finding(model, described)
