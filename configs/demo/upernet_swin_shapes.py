"""A small Swin UPerNet for the semantic labels of the dataset that sparsevit makes itself: every
phase in minutes on a CPU. What a phase changes in it stands under ``phases``."""

custom_imports = dict(imports=["sparsevit.models"], allow_failed_imports=False)
default_scope = "mmseg"

# Made where it is missing, as `sparsevit data make --task segmentation` does.
image_size = 224
classes = ("circle", "triangle", "square", "star", "ring")
embedded_dataset = dict(
    train=800,
    val=100,
    width=image_size,
    height=image_size,
    # larger than the detector's: of small ones nearly all pixels are background
    objects=(3, 6),
    object_size=(40, 96),
    classes=classes,
    seed=0,
    labels=True,
    # from pixels alone shapes take longer to tell apart than a demo has
    hues=True,
)
data_root = "work_dirs/data/"
metainfo = dict(
    classes=("background", *classes),
    palette=[
        [64, 64, 64],
        [230, 97, 1],
        [94, 60, 153],
        [27, 158, 119],
        [231, 41, 138],
        [230, 171, 2],
    ],
)

channels = 64
num_classes = 1 + len(classes)
norm = dict(type="BN", requires_grad=True)
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size_divisor=32,
        test_cfg=dict(size_divisor=32),
    ),
    backbone=dict(
        type="SwinTransformer",
        embed_dims=32,
        depths=[2, 2, 2, 2],
        num_heads=[1, 2, 4, 8],
        window_size=7,
        drop_path_rate=0.0,
        out_indices=(0, 1, 2, 3),
    ),
    decode_head=dict(
        type="UPerHead",
        in_channels=[32, 64, 128, 256],
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=channels,
        dropout_ratio=0.1,
        num_classes=num_classes,
        norm_cfg=norm,
        align_corners=False,
        loss_decode=dict(
            type="CrossEntropyLoss",
            use_sigmoid=False,
            # without this all is background for most of so short a training
            class_weight=[0.2, *[1.0] * len(classes)],
            loss_weight=1.0,
        ),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)

resize = dict(type="Resize", scale=(image_size, image_size), keep_ratio=True)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    resize,
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    resize,
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="BaseSegDataset",
        data_root=data_root,
        data_prefix=dict(img_path="train", seg_map_path="labels/train"),
        img_suffix=".png",
        seg_map_suffix=".png",
        metainfo=metainfo,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=0,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="BaseSegDataset",
        data_root=data_root,
        data_prefix=dict(img_path="val", seg_map_path="labels/val"),
        img_suffix=".png",
        seg_map_suffix=".png",
        metainfo=metainfo,
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"])
test_evaluator = val_evaluator

iterations = 400
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
    optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05),
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
