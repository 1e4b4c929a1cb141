"""Small BEVDet models, cameras around a car, and the reference's own model for its keys."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

CLASSES = [
    *("car", "truck", "construction_vehicle", "bus", "trailer", "barrier"),
    *("motorcycle", "bicycle", "pedestrian", "traffic_cone"),
]
TASKS = [CLASSES[0:1], CLASSES[1:3], CLASSES[3:5], CLASSES[5:6], CLASSES[6:8], CLASSES[8:10]]


def bevdet(size: tuple[int, int] = (256, 704), cell: float = 0.8, **swin: Any) -> dict[str, Any]:
    """``configs/bevdet/bevdet-sttiny.py`` of the reference, its backbone a ``SparseViT``.

    Args:
        size: (height, width) of the images.
        cell: of the grid, in metres.
        **swin: arguments of the backbone, in place of Swin-T's.
    """
    dims = swin.get("embed_dims", 96)
    voxel = [cell / 8, cell / 8, 0.2]
    grid = {
        "xbound": [-51.2, 51.2, cell],
        "ybound": [-51.2, 51.2, cell],
        "zbound": [-10.0, 10.0, 20.0],
        "dbound": [1.0, 60.0, 1.0],
    }
    out = 512 if dims == 96 else 2 * dims
    trans = 64 if dims == 96 else dims
    return {
        "type": "BEVDet",
        "img_backbone": {
            "type": "SparseViT",
            "embed_dims": 96,
            "depths": [2, 2, 6, 2],
            "num_heads": [3, 6, 12, 24],
            "window_size": 7,
            "out_indices": (2, 3),
            "drop_path_rate": 0.0,
            **swin,
        },
        "img_neck": {
            "type": "FPN_LSS",
            "in_channels": 12 * dims,
            "out_channels": out,
            "extra_upsample": None,
            "input_feature_index": (0, 1),
            "scale_factor": 2,
        },
        "img_view_transformer": {
            "type": "ViewTransformerLiftSplatShoot",
            "grid_config": grid,
            "data_config": {"input_size": size},
            "numC_input": out,
            "numC_Trans": trans,
        },
        "img_bev_encoder_backbone": {"type": "ResNetForBEVDet", "numC_input": trans},
        "img_bev_encoder_neck": {
            "type": "FPN_LSS",
            "in_channels": trans * 10,
            "out_channels": 4 * trans,
        },
        "pts_bbox_head": {
            "type": "CenterHead",
            "in_channels": 4 * trans,
            "tasks": [{"num_class": len(names), "class_names": names} for names in TASKS],
            "common_heads": {
                "reg": (2, 2),
                "height": (1, 2),
                "dim": (3, 2),
                "rot": (2, 2),
                "vel": (2, 2),
            },
            "share_conv_channel": 64,
            "bbox_coder": {
                "type": "CenterPointBBoxCoder",
                "pc_range": [-51.2, -51.2],
                "post_center_range": [-61.2, -61.2, -10.0, 61.2, 61.2, 10.0],
                "max_num": 500,
                "score_threshold": 0.1,
                "out_size_factor": 8,
                "voxel_size": voxel[:2],
                "code_size": 9,
            },
            "separate_head": {"type": "SeparateHead", "init_bias": -2.19, "final_kernel": 3},
            "loss_cls": {"type": "GaussianFocalLoss", "reduction": "mean"},
            "loss_bbox": {"type": "L1Loss", "reduction": "mean", "loss_weight": 0.25},
            "norm_bbox": True,
        },
        "train_cfg": {
            "pts": {
                "point_cloud_range": [-51.2, -51.2, -5.0, 51.2, 51.2, 3.0],
                "grid_size": [round(102.4 / voxel[0]), round(102.4 / voxel[1]), 40],
                "voxel_size": voxel,
                "out_size_factor": 8,
                "dense_reg": 1,
                "gaussian_overlap": 0.1,
                "max_objs": 500,
                "min_radius": 2,
                "code_weights": [1.0] * 8 + [0.2] * 2,
            }
        },
        "test_cfg": {
            "pts": {
                "pc_range": [-51.2, -51.2],
                "post_center_limit_range": [-61.2, -61.2, -10.0, 61.2, 61.2, 10.0],
                "max_per_img": 500,
                "max_pool_nms": False,
                "min_radius": [4, 12, 10, 1, 0.85, 0.175],
                "score_threshold": 0.1,
                "out_size_factor": 8,
                "voxel_size": voxel[:2],
                "pre_max_size": 1000,
                "post_max_size": 83,
                "nms_type": ["rotate", "rotate", "rotate", "circle", "rotate", "rotate"],
                "nms_thr": [0.2, 0.2, 0.2, 0.2, 0.2, 0.5],
                "nms_rescale_factor": [
                    *(1.0, [0.7, 0.7], [0.4, 0.55], 1.1, [1.0, 1.0], [4.5, 9.0])
                ],
            }
        },
    }


def small_bevdet(**swin: Any) -> dict[str, Any]:
    """One that runs in a moment: 64 x 128 images, cells of 3.2 m, so a map of 32 x 32."""
    small = {"embed_dims": 16, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 2, 2]}
    return bevdet((64, 128), 3.2, **{**small, **swin})


def cameras_around(count: int = 6, size: tuple[int, int] = (256, 704)) -> dict[str, Tensor]:
    """Cameras that look in all directions from above a car, as a model's inputs without images.

    x is forward, y to the left and z up; images are half as large as they were taken.
    """
    height, width = size
    yaws = [2 * math.pi * n / count for n in range(count)]
    to_car = torch.tensor([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    rots = [
        torch.tensor([[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0], [0, 0, 1]])
        @ to_car
        for a in yaws
    ]
    intrinsics = torch.tensor([[1.6 * width, 0, width], [0, 1.6 * width, height], [0, 0, 1]])
    return {
        "rots": torch.stack(rots)[None],
        "trans": torch.tensor([[math.cos(a), math.sin(a), 1.6] for a in yaws])[None],
        "intrins": intrinsics.repeat(1, count, 1, 1),
        "post_rots": torch.diag(torch.tensor([0.5, 0.5, 1.0])).repeat(1, count, 1, 1),
        "post_trans": torch.zeros(1, count, 3),
    }
