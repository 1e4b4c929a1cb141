"""BEVDet (arXiv 2112.11790): boxes in 3D from the cameras around a car."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmdet.models.detectors.base import BaseDetector
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from torch import Tensor

from sparsevit.models.bev.head import Maps
from sparsevit.models.bev.view_transformer import Cameras

Inputs = Mapping[str, Tensor]
"""``imgs`` (B, N, 3, H, W), normalised, of N cameras, and the fields of
:class:`~sparsevit.models.bev.view_transformer.Cameras`."""


@MODELS.register_module()
class BEVDet(BaseDetector):
    """Image features, spread into a map seen from above, in which a head finds boxes.

    ``model(inputs, data_samples, mode)`` with :data:`Inputs` is, by mode:

    - ``tensor``: a list by task of the head's raw maps by name, (B, channels, ny, nx);
    - ``loss``: losses by name, of data samples with ``gt_instances_3d`` (``bboxes_3d`` (n, 9) as
      x, y, z of the centre, w, l, h, yaw, vx, vy; ``labels_3d`` (n,));
    - ``predict``: the data samples, with ``pred_instances_3d`` (and ``scores_3d``).

    Args:
        img_backbone: of the images; all cameras are one batch to it.
        img_neck: from its maps to one.
        img_view_transformer: from that to a map seen from above.
        img_bev_encoder_backbone, img_bev_encoder_neck: what follows.
        pts_bbox_head: finds boxes.
        train_cfg, test_cfg: of the head, under ``pts``.
        data_preprocessor: see :class:`~sparsevit.models.bev.preprocessor.BEVDataPreprocessor`.
        init_cfg: of mmengine.
    """

    def __init__(
        self,
        img_backbone: Mapping[str, Any],
        img_neck: Mapping[str, Any],
        img_view_transformer: Mapping[str, Any],
        img_bev_encoder_backbone: Mapping[str, Any],
        img_bev_encoder_neck: Mapping[str, Any],
        pts_bbox_head: Mapping[str, Any],
        train_cfg: Mapping[str, Any] | None = None,
        test_cfg: Mapping[str, Any] | None = None,
        data_preprocessor: Mapping[str, Any] | None = None,
        init_cfg: Any = None,
    ) -> None:
        preprocessor = MODELS.build(data_preprocessor or {"type": "BEVDataPreprocessor"})
        super().__init__(preprocessor, init_cfg)
        self.img_backbone = MODELS.build(img_backbone)
        self.img_neck = MODELS.build(img_neck)
        self.img_view_transformer = MODELS.build(img_view_transformer)
        self.img_bev_encoder_backbone = MODELS.build(img_bev_encoder_backbone)
        self.img_bev_encoder_neck = MODELS.build(img_bev_encoder_neck)
        of_head = {"train_cfg": train_cfg, "test_cfg": test_cfg}
        of_head = {name: cfg["pts"] for name, cfg in of_head.items() if cfg}
        self.pts_bbox_head = MODELS.build({**pts_bbox_head, **of_head})

    def image_encoder(self, imgs: Tensor) -> Tensor:
        """(B, N, 3, H, W) images -> (B, N, C, h, w) features."""
        x = self.img_neck(self.img_backbone(imgs.flatten(0, 1)))
        return x.unflatten(0, imgs.shape[:2])

    def bev_encoder(self, x: Tensor) -> Tensor:
        """(B, C, ny, nx) -> (B, C', ny, nx), both seen from above."""
        return self.img_bev_encoder_neck(self.img_bev_encoder_backbone(x))

    def extract_feat(self, batch_inputs: Inputs) -> Tensor:
        """Inputs -> (B, C, ny, nx), seen from above."""
        x = self.image_encoder(batch_inputs["imgs"])
        return self.bev_encoder(self.img_view_transformer(x, Cameras.of(batch_inputs)))

    def _forward(self, batch_inputs: Inputs, batch_data_samples: Any = None) -> list[Maps]:
        return self.pts_bbox_head(self.extract_feat(batch_inputs))

    def loss(
        self, batch_inputs: Inputs, batch_data_samples: Sequence[DetDataSample]
    ) -> dict[str, Tensor]:
        """Losses by name."""
        truths = [sample.gt_instances_3d for sample in batch_data_samples]
        boxes, labels = [one.bboxes_3d for one in truths], [one.labels_3d for one in truths]
        return self.pts_bbox_head.loss(self._forward(batch_inputs), boxes, labels)

    def predict(
        self,
        batch_inputs: Inputs,
        batch_data_samples: Sequence[DetDataSample] | None = None,
    ) -> list[DetDataSample]:
        """The data samples, new ones where there are none, with the boxes found."""
        return self.add_boxes(self._forward(batch_inputs), batch_data_samples)

    def add_boxes(
        self, maps: Sequence[Maps], batch_data_samples: Sequence[DetDataSample] | None
    ) -> list[DetDataSample]:
        """What :meth:`predict` makes of the head's raw maps."""
        found = self.pts_bbox_head.predict(maps)
        samples = list(batch_data_samples or (DetDataSample() for _ in found))
        for sample, boxes in zip(samples, found, strict=True):
            sample.pred_instances_3d = boxes
        return samples
