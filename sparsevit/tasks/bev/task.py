"""Monocular 3D detection as a task."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from sparsevit.data.nuscenes.names import CAMERAS, CLASSES
from sparsevit.errors import UserError
from sparsevit.tasks.base import LEAST_SCORE, Rows, Task, shown
from sparsevit.tasks.bev import checks

if TYPE_CHECKING:
    from sparsevit.data.own import Choice, OwnData
    from sparsevit.latency.backends.artefacts import Checked, Format
    from sparsevit.tasks.script import Finding

NDS, MEAN_AP = "NDS", "mAP"
ERRORS = ("mATE", "mASE", "mAOE", "mAVE", "mAAE")


class Bev(Task):
    """Objects around a car, in metres: BEVDet, scored by nuScenes' metrics.

    A sample has six images, of as many cameras at one moment: they are one batch to the backbone.
    """

    name = "bev"
    scope = "mmdet"
    whole = "bev-detector"
    visualizer = "DetLocalVisualizer"
    backbone = "img_backbone"
    metric = NDS
    headlines: ClassVar[Mapping[str, str]] = {NDS: "NDS", MEAN_AP: "mAP"}
    points = 100.0
    models = frozenset({"BEVDet"})
    views = len(CAMERAS)
    channels = "RGB"

    def registries(self) -> Any:
        for module in ("sparsevit.models", "sparsevit.data.nuscenes.registered"):
            importlib.import_module(module)
        return super().registries()

    def built(self, model: nn.Module) -> bool:
        if "sparsevit.models.bev" not in sys.modules:
            return False
        from sparsevit.models.bev import BEVDet

        return isinstance(model, BEVDet)

    # --- data and metrics -----------------------------------------------------------------------

    def check_data(
        self, cfg: Any, splits: Sequence[str], copies: Path | None = None
    ) -> tuple[str, ...]:
        return checks.check_data(cfg, splits, leave_out=copies is not None)

    def fit_data(self, cfg: Any, data: OwnData, files: Mapping[str, Path]) -> None:
        raise _no_boxes(data)

    def suit(self, cfg: Any, data: OwnData, most: int) -> tuple[tuple[int, int], list[Choice]]:
        raise _no_boxes(data)

    def known_metrics(self, evaluator: Any) -> tuple[str, ...]:
        metrics = evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]
        if len(metrics) != 1 or not checks.is_type(metrics[0], "NuScenesMetric"):
            return ()
        return (NDS, MEAN_AP)

    def nothing_found(self, metric: Any) -> dict[str, float]:
        return {}

    def scores_parts(self, metrics: Sequence[Any]) -> bool:
        from sparsevit.data.nuscenes.metric import NuScenesMetric

        # the devkit wants whole splits
        return all(type(metric) is NuScenesMetric and not metric.devkit for metric in metrics)

    def image_id(self, info: Mapping[str, Any]) -> Hashable:
        token: Hashable = info["sample_token"]
        return token

    def score_only(self, metrics: Sequence[Any], ids: Sequence[Any]) -> None:
        """Nothing to tell: a sample that a metric was not shown does not count."""

    def class_scores(self, metrics: Sequence[Any]) -> dict[str, dict[str, float]]:
        found = [getattr(metric, "scores", None) for metric in metrics]
        scores = next((one for one in found if one is not None), None)
        return {} if scores is None else {MEAN_AP: dict(scores.ap)}

    def to_fp32(self, samples: Sequence[Any]) -> None:
        for sample in samples:
            found = sample.get("pred_instances_3d", {})
            for name, value in found.items():
                if isinstance(value, Tensor) and value.is_floating_point():
                    found[name] = value.float()

    def in_points(self, metrics: Mapping[str, float]) -> dict[str, float]:
        # an error is no score
        return super().in_points(
            {name: value for name, value in metrics.items() if name in (NDS, MEAN_AP)}
        )

    def table(self, metrics: Mapping[str, float]) -> tuple[tuple[str, ...], Rows]:
        names = (NDS, MEAN_AP, *ERRORS)
        return ("", *names), [("boxes", *(shown(metrics.get(name)) for name in names))]

    def class_table(
        self, classes: Mapping[str, Mapping[str, float]]
    ) -> tuple[tuple[str, ...], Rows]:
        columns, rows = super().class_table(classes)
        # of one class it is no mean
        return tuple(heading.removeprefix("m") for heading in columns), rows

    # --- predictions ----------------------------------------------------------------------------

    def to_json(self, sample: Any) -> list[dict[str, Any]]:
        found = sample.pred_instances_3d
        boxes, scores, labels = (
            found[name].tolist() for name in ("bboxes_3d", "scores_3d", "labels_3d")
        )
        return [
            {
                "sample": sample.metainfo.get("sample_token"),
                "label": label,
                "score": score,
                "centre": box[:3],
                "size": box[3:6],
                "yaw": box[6],
                "velocity": box[7:],
            }
            for box, score, label in zip(boxes, scores, labels, strict=True)
        ]

    def draw(
        self,
        sample: Any,
        pixels: Any,
        out: Path,
        meta: Mapping[str, Any],
        least: float = LEAST_SCORE,
    ) -> Path:
        """Boxes in the six images and from above, and there in grey what is annotated.

        ``pixels`` are those of one image: the others are read from their files too.
        """
        from sparsevit.data.nuscenes.picture import draw_samples

        found = sample.pred_instances_3d
        found = found[found.scores_3d >= least]
        row = (sample.metainfo, found.bboxes_3d.numpy(), found.labels_3d.numpy())
        real = sample.get("gt_instances_3d")
        truth = None if real is None else [real.bboxes_3d[real.labels_3d >= 0].numpy()]
        draw_samples([row], out, tuple(meta.get("classes", CLASSES)), truth)
        return out

    def palette(self, classes: int) -> list[tuple[int, int, int]]:
        from sparsevit.data.nuscenes.picture import palette_of

        return [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in palette_of(classes)]

    # --- what is timed --------------------------------------------------------------------------

    def fixed_size(self, cfg: Any) -> tuple[int, int] | None:
        view = cfg.model.get("img_view_transformer") or {}
        size = (view.get("data_config") or {}).get("input_size")
        return None if size is None else (int(size[0]), int(size[1]))

    def pixels_of(self, inputs: Any) -> Any:
        return inputs["imgs"] if isinstance(inputs, Mapping) else inputs

    def batch_of(self, pixels: Tensor) -> dict[str, Any]:
        from mmdet.structures import DetDataSample

        images = pixels.unflatten(0, (-1, self.views))
        cameras = _cameras(*pixels.shape[-2:])
        return {
            "inputs": [{"imgs": imgs, **cameras} for imgs in images],
            "data_samples": [
                DetDataSample(metainfo={"sample_token": str(i)}) for i in range(len(images))
            ],
        }

    def batch_from(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        from sparsevit.data.nuscenes.transforms import collate_samples

        return collate_samples(samples)

    # --- a whole model in a backend or a file ---------------------------------------------------

    def prepare(
        self, backend: str, model: nn.Module, images: Any, precision: str, device: torch.device
    ) -> Any:
        from sparsevit.tasks.bev.backends import prepare_bevdet

        return prepare_bevdet(backend, model, images, precision, device)

    def write_checked(
        self, form: Format[Any], model: nn.Module, shape: tuple[int, ...], target: Path
    ) -> Checked:
        from sparsevit.tasks.bev.export import write_bevdet

        batch = self.random_batch(shape[0] // self.views, (shape[-2], shape[-1]))
        return write_bevdet(form, model, batch, target)

    def describe_export(self, cfg: Any, model: nn.Module, batch_size: int) -> dict[str, Any]:
        from sparsevit.tasks.bev.export import described

        return described(model)

    def finding(self, model: nn.Module, described: Mapping[str, Any]) -> Finding:
        from sparsevit.tasks.bev.script import finding

        return finding(model, described)


def _no_boxes(data: OwnData) -> UserError:
    return UserError(
        f"BEVDet learns boxes in 3D from calibrated cameras, which {data.root} has not.",
        "Bring your data into nuScenes' format, and set data_root of the config's datasets.",
    )


def _cameras(height: int, width: int) -> dict[str, Tensor]:
    """The six cameras of a car as nuScenes mounts them, for images of a size: what a sample's
    ``inputs`` have beside images."""
    from sparsevit.data.nuscenes.made.make import cameras_of
    from sparsevit.data.nuscenes.made.spec import ScenesSpec

    mounted = cameras_of(ScenesSpec(width=width, height=height))
    stacked = {
        "rots": [one.rotation for one in mounted],
        "trans": [one.translation for one in mounted],
        "intrins": [one.intrinsic for one in mounted],
    }
    return {
        **{
            name: torch.stack([torch.as_tensor(value, dtype=torch.float32) for value in values])
            for name, values in stacked.items()
        },
        "post_rots": torch.eye(3).repeat(len(mounted), 1, 1),
        "post_trans": torch.zeros(len(mounted), 3),
    }
