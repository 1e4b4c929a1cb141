"""nuScenes' detection metrics as a metric of mmengine's."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric

from sparsevit.atomic import write_atomic
from sparsevit.data.nuscenes import geometry
from sparsevit.data.nuscenes.names import attribute_of
from sparsevit.data.nuscenes.score import (
    ERRORS,
    MOST_BOXES,
    Boxes,
    Scores,
    annotated,
    countable,
    score,
)
from sparsevit.data.nuscenes.tables import official_split
from sparsevit.errors import UserError

_MODALITY = {
    "use_camera": True,
    **dict.fromkeys(("use_lidar", "use_radar", "use_map", "use_external"), False),
}


@METRICS.register_module()
class NuScenesMetric(BaseMetric):
    """``NDS``, ``mAP``, ``mATE``, ``mASE``, ``mAOE``, ``mAVE``, ``mAAE``, and ``<class>_AP``.

    Only the samples that it was shown count, so parts of a split can be scored.

    Args:
        outfile: also write what was found, in the form in which the benchmark takes results.
        devkit: have nuscenes-devkit compute the metrics instead, which needs a whole split, all ten
            classes, and a :class:`~sparsevit.data.nuscenes.dataset.NuScenesCameras`.
        collect_device, prefix: as of mmengine's ``BaseMetric``.

    Attributes:
        scores: what was found last, by class too; in the first process, and not of the devkit.
    """

    default_prefix = "NuScenes"

    def __init__(
        self,
        outfile: str | None = None,
        devkit: bool = False,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.outfile, self.devkit = outfile, devkit
        self.scores: Scores | None = None

    def process(self, data_batch: Any, data_samples: Sequence[Any]) -> None:
        for sample in data_samples:
            found = sample["pred_instances_3d"]
            values = {
                "bboxes_3d": found["bboxes_3d"].float().cpu().numpy(),
                "scores_3d": found["scores_3d"].float().cpu().numpy(),
                "labels_3d": found["labels_3d"].cpu().numpy(),
            }
            meta = {key: sample[key] for key in ("sample_token", "lidar2ego", "ego2global")}
            self.results.append({**values, **meta, "annotations": sample["annotations"]})

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        classes = tuple(self.dataset_meta["classes"])
        found = {result["sample_token"]: detections(result, classes) for result in results}
        if self.outfile:
            write_atomic(Path(self.outfile), json.dumps(benchmark_form(found)))
        if self.devkit:
            return _by_devkit(found, self.dataset_meta)
        real = {
            result["sample_token"]: annotated(result["annotations"], result["ego2global"][:3, 3])
            for result in results
        }
        self.scores = score([(real[token], boxes) for token, (boxes, _) in found.items()], classes)
        return {
            **self.scores.metrics,
            **{f"{name}_AP": value for name, value in self.scores.ap.items()},
        }


def detections(result: Mapping[str, Any], classes: Sequence[str]) -> tuple[Boxes, np.ndarray]:
    """What was found in a sample and counts, in the world, at most 500 boxes, the best first; and
    their rotations (n, 4)."""
    centres, sizes, rotations, velocities = geometry.to_global(
        result["bboxes_3d"], result["ego2global"] @ result["lidar2ego"]
    )
    names = np.array([classes[label] for label in result["labels_3d"]], object)
    speeds = np.linalg.norm(velocities, axis=1)
    boxes = Boxes(
        names=names,
        centres=centres,
        sizes=sizes,
        yaws=geometry.headings(rotations),
        velocities=velocities,
        attributes=np.array(
            [attribute_of(name, v) for name, v in zip(names, speeds, strict=True)], object
        ),
        scores=np.asarray(result["scores_3d"], np.float64),
    )
    best = np.argsort(-boxes.scores, kind="stable")
    near = countable(boxes, result["ego2global"][:3, 3], result["annotations"].racks)
    best = best[near[best]][:MOST_BOXES]
    return boxes[best], geometry.quaternions_of(rotations[best])


def benchmark_form(found: Mapping[str, tuple[Boxes, np.ndarray]]) -> dict[str, Any]:
    """Results as the benchmark and the devkit take them.

    Args:
        found: sample token -> boxes in the world and their rotations (n, 4).
    """
    results = {
        token: [
            {
                "sample_token": token,
                "translation": boxes.centres[i].tolist(),
                "size": boxes.sizes[i].tolist(),
                "rotation": rotations[i].tolist(),
                "velocity": boxes.velocities[i].tolist(),
                "detection_name": str(boxes.names[i]),
                "detection_score": float(boxes.scores[i]),
                "attribute_name": str(boxes.attributes[i]),
            }
            for i in range(len(boxes.scores))
        ]
        for token, (boxes, rotations) in found.items()
    }
    return {"meta": _MODALITY, "results": results}


def _by_devkit(
    found: Mapping[str, tuple[Boxes, np.ndarray]], meta: Mapping[str, Any]
) -> dict[str, float]:
    try:
        from nuscenes.eval.common.config import config_factory
        from nuscenes.eval.detection.evaluate import DetectionEval
        from nuscenes.nuscenes import NuScenes
    except ImportError as error:
        raise UserError(
            f"nuscenes-devkit cannot be imported: {error}.",
            "Run: pip install --no-deps nuscenes-devkit pyquaternion cachetools, and "
            "pip install scikit-learn. Or leave devkit=True out of the evaluator.",
        ) from error
    root, version, split = (meta["nuscenes"][key] for key in ("data_root", "version", "split"))
    said = io.StringIO()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        path = Path(folder, "results.json")
        path.write_text(json.dumps(benchmark_form(found)), encoding="utf-8")
        tables = NuScenes(version, dataroot=root, verbose=False)
        settings = config_factory("detection_cvpr_2019")
        official = official_split(version, split)
        try:
            summary = DetectionEval(tables, settings, str(path), official, folder, False)
        except (AssertionError, KeyError) as error:
            raise UserError(
                f"nuscenes-devkit does not take these results: {error}.",
                "It scores whole splits; leave devkit=True out to score parts.",
            ) from error
        values = summary.main(render_curves=False)
    return {
        "NDS": values["nd_score"],
        "mAP": values["mean_ap"],
        **{name: values["tp_errors"][f"{key}_err"] for key, name in ERRORS.items()},
        **{f"{name}_AP": float(value) for name, value in values["mean_dist_aps"].items()},
    }
