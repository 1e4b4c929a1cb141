"""A small Swin classifier for pictures of one shape each, which sparsevit makes itself: every phase
in minutes on a CPU. What a phase changes in it stands under ``phases``."""

custom_imports = dict(imports=["sparsevit.models"], allow_failed_imports=False)
default_scope = "mmpretrain"

# Made where it is missing, as `sparsevit data make --task classification` does.
image_size = 224
classes = ("circle", "crescent", "cross", "ring", "square", "star", "triangle")
embedded_dataset = dict(
    train=1400,
    val=280,
    width=image_size,
    height=image_size,
    objects=(1, 1),
    classes=classes,
    seed=0,
    folders=True,
    # from pixels alone shapes take longer to tell apart than a demo has
    hues=True,
)
data_root = "work_dirs/data/"
metainfo = dict(classes=classes)

model = dict(
    type="ImageClassifier",
    data_preprocessor=dict(
        type="ClsDataPreprocessor",
        num_classes=len(classes),
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    backbone=dict(
        type="SwinTransformer",
        arch=dict(embed_dims=32, depths=[2, 2, 2, 2], num_heads=[1, 2, 4, 8]),
        img_size=image_size,
        window_size=7,
        drop_path_rate=0.0,
        out_indices=(3,),
    ),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(
        type="LinearClsHead",
        num_classes=len(classes),
        in_channels=256,
        init_cfg=None,
        loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1, mode="original"),
        cal_acc=False,
    ),
    init_cfg=[
        dict(type="TruncNormal", layer="Linear", std=0.02, bias=0.0),
        dict(type="Constant", layer="LayerNorm", val=1.0, bias=0.0),
    ],
)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="RandomResizedCrop", scale=image_size, crop_ratio_range=(0.6, 1.0)),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(image_size, image_size), keep_ratio=False),
    dict(type="PackInputs"),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="CustomDataset",
        data_root=data_root,
        data_prefix="train",
        metainfo=metainfo,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=0,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CustomDataset",
        data_root=data_root,
        data_prefix="val",
        metainfo=metainfo,
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="Accuracy", topk=(1, 5))
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
