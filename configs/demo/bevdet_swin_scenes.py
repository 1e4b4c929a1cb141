"""A small Swin BEVDet for scenes that sparsevit makes itself, seen by six cameras: every phase in
minutes on a CPU. What a phase changes in it stands under ``phases``."""

custom_imports = dict(
    imports=["sparsevit.models", "sparsevit.data.nuscenes.registered"], allow_failed_imports=False
)
default_scope = "mmdet"

# Made where they are missing, as `sparsevit data make --task bev` does.
classes = ("car", "pedestrian")
reach, cell = 32, 1.0
embedded_dataset = dict(
    task="bev",
    train=600,
    val=40,
    width=224,
    height=126,
    objects=(40, 60),
    classes=classes,
    reach=reach,
    seed=0,
)
data_root = "work_dirs/data/"
metainfo = dict(classes=classes)

data_config = dict(
    cams=[
        "CAM_FRONT_LEFT",
        "CAM_FRONT",
        "CAM_FRONT_RIGHT",
        "CAM_BACK_LEFT",
        "CAM_BACK",
        "CAM_BACK_RIGHT",
    ],
    Ncams=6,
    input_size=(96, 224),
    src_size=(126, 224),
    # little: a short training has seen few images
    resize=(-0.02, 0.04),
    rot=(0.0, 0.0),
    flip=False,
    crop_h=(0.0, 0.0),
    resize_test=0.0,
)
grid_config = dict(
    xbound=[-reach, reach, cell],
    ybound=[-reach, reach, cell],
    zbound=[-10.0, 10.0, 20.0],
    dbound=[2.0, 42.0, 2.0],
)
point_cloud_range = [-reach, -reach, -5.0, reach, reach, 3.0]
out_size_factor = 8
voxel_size = [cell / out_size_factor, cell / out_size_factor, 0.2]
voxels = round(2 * reach / voxel_size[0])

channels = 32
model = dict(
    type="BEVDet",
    data_preprocessor=dict(
        type="BEVDataPreprocessor", mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]
    ),
    img_backbone=dict(
        type="SwinTransformer",
        embed_dims=32,
        depths=[2, 2, 2, 2],
        num_heads=[1, 2, 4, 8],
        window_size=7,
        drop_path_rate=0.0,
        out_indices=(2, 3),
    ),
    img_neck=dict(
        type="FPN_LSS",
        in_channels=128 + 256,
        out_channels=64,
        extra_upsample=2,
        input_feature_index=(0, 1),
        scale_factor=2,
    ),
    img_view_transformer=dict(
        type="ViewTransformerLiftSplatShoot",
        grid_config=grid_config,
        data_config=dict(input_size=data_config["input_size"]),
        numC_input=64,
        numC_Trans=channels,
        downsample=8,
    ),
    img_bev_encoder_backbone=dict(
        type="ResNetForBEVDet", numC_input=channels, num_layer=[1, 1, 1], num_channels=[32, 64, 64]
    ),
    img_bev_encoder_neck=dict(type="FPN_LSS", in_channels=32 + 64, out_channels=32),
    pts_bbox_head=dict(
        type="CenterHead",
        in_channels=32,
        tasks=[
            dict(num_class=1, class_names=["car"]),
            dict(num_class=1, class_names=["pedestrian"]),
        ],
        common_heads=dict(reg=(2, 2), height=(1, 2), dim=(3, 2), rot=(2, 2), vel=(2, 2)),
        share_conv_channel=32,
        bbox_coder=dict(
            type="CenterPointBBoxCoder",
            pc_range=point_cloud_range[:2],
            post_center_range=[-61.2, -61.2, -10.0, 61.2, 61.2, 10.0],
            max_num=200,
            score_threshold=0.05,
            out_size_factor=out_size_factor,
            voxel_size=voxel_size[:2],
            code_size=9,
        ),
        separate_head=dict(type="SeparateHead", head_conv=32, init_bias=-2.19, final_kernel=3),
        loss_cls=dict(type="GaussianFocalLoss", reduction="mean"),
        loss_bbox=dict(type="L1Loss", reduction="mean", loss_weight=0.25),
        norm_bbox=True,
    ),
    train_cfg=dict(
        pts=dict(
            point_cloud_range=point_cloud_range,
            grid_size=[voxels, voxels, 40],
            voxel_size=voxel_size,
            out_size_factor=out_size_factor,
            dense_reg=1,
            gaussian_overlap=0.1,
            max_objs=500,
            min_radius=2,
            code_weights=[1.0] * 8 + [0.2] * 2,
        )
    ),
    test_cfg=dict(
        pts=dict(
            pc_range=point_cloud_range[:2],
            post_center_limit_range=[-61.2, -61.2, -10.0, 61.2, 61.2, 10.0],
            max_per_img=500,
            min_radius=[4, 0.5],
            score_threshold=0.05,
            out_size_factor=out_size_factor,
            voxel_size=voxel_size[:2],
            pre_max_size=200,
            post_max_size=83,
            nms_type=["rotate", "circle"],
            nms_thr=[0.2, 0.2],
            nms_rescale_factor=[[1.0, 1.0], [1.0, 1.0]],
        )
    ),
)

train_pipeline = [
    dict(type="LoadMultiViewImageFromFiles_BEVDet", is_train=True, data_config=data_config),
    dict(type="ObjectRangeFilter", point_cloud_range=point_cloud_range),
    dict(type="ObjectNameFilter"),
    dict(type="Pack3DDetInputs"),
]
test_pipeline = [
    dict(type="LoadMultiViewImageFromFiles_BEVDet", data_config=data_config),
    dict(type="Pack3DDetInputs"),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    collate_fn=dict(type="collate_samples"),
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="NuScenesCameras",
        data_root=data_root,
        version="v1.0-made",
        split="train",
        metainfo=metainfo,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=2,
    num_workers=0,
    drop_last=False,
    collate_fn=dict(type="collate_samples"),
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="NuScenesCameras",
        data_root=data_root,
        version="v1.0-made",
        split="val",
        metainfo=metainfo,
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="NuScenesMetric")
test_evaluator = val_evaluator

iterations = 500
train_cfg = dict(type="IterBasedTrainLoop", max_iters=iterations, val_interval=1_000_000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=50, end=iterations, eta_min_ratio=0.02),
]
optim_wrapper = dict(
    type="OptimWrapper",
    clip_grad=dict(max_norm=5.0, norm_type=2),
    paramwise_cfg=dict(
        custom_keys=dict(
            relative_position_bias_table=dict(decay_mult=0.0), norm=dict(decay_mult=0.0)
        )
    ),
    optimizer=dict(type="AdamW", lr=2e-3, betas=(0.9, 0.999), weight_decay=0.01),
)
default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=20, log_metric_by_epoch=False),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=100, max_keep_ckpts=2),
    sampler_seed=dict(type="DistSamplerSeedHook"),
)
log_processor = dict(type="LogProcessor", window_size=20, by_epoch=False)
env_cfg = dict(mp_cfg=dict(mp_start_method="fork", opencv_num_threads=1))

adapt_iterations = 160
finetune_iterations = 100
phases = dict(
    adapt=dict(
        train_cfg=dict(max_iters=adapt_iterations),
        optim_wrapper=dict(optimizer=dict(lr=5e-4)),
        param_scheduler=[
            dict(
                type="CosineAnnealingLR",
                by_epoch=False,
                begin=0,
                end=adapt_iterations,
                eta_min_ratio=0.1,
            )
        ],
    ),
    finetune=dict(
        train_cfg=dict(max_iters=finetune_iterations),
        optim_wrapper=dict(optimizer=dict(lr=3e-4)),
        param_scheduler=[
            dict(
                type="CosineAnnealingLR",
                by_epoch=False,
                begin=0,
                end=finetune_iterations,
                eta_min_ratio=0.02,
            )
        ],
    ),
)
