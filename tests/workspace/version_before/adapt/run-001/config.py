custom_imports = dict(imports=['sparsevit.models'], allow_failed_imports=False)
default_scope = 'mmdet'
image_size = 224
classes = ('circle', 'triangle', 'square')
embedded_dataset = dict(
    train=8,
    val=6,
    width=64,
    height=64,
    objects=(2, 4),
    object_size=(12, 30),
    seed=0,
    classes=('circle', 'triangle', 'square'),
)
data_root = '/home/user/work_dirs/data/shapes-902c444e/'
channels = 64
model = dict(
    type='MaskRCNN',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_mask=True,
        pad_size_divisor=32,
    ),
    backbone=dict(
        type='SparseViT',
        embed_dims=8,
        depths=[2, 2, 4, 2],
        num_heads=[1, 1, 2, 4],
        window_size=7,
        drop_path_rate=0.0,
        out_indices=(0, 1, 2, 3),
        pruning_ratios=0.0,
    ),
    neck=dict(
        type='FPN',
        in_channels=[8, 16, 32, 64],
        out_channels=8,
        num_outs=4,
    ),
    rpn_head=dict(
        type='RPNHead',
        in_channels=8,
        feat_channels=8,
        anchor_generator=dict(
            type='AnchorGenerator',
            scales=[4],
            ratios=[0.7, 1.4],
            strides=[4, 8, 16, 32],
        ),
        bbox_coder=dict(
            type='DeltaXYWHBBoxCoder',
            target_means=[0.0, 0.0, 0.0, 0.0],
            target_stds=[1.0, 1.0, 1.0, 1.0],
        ),
        loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0),
        loss_bbox=dict(type='L1Loss', loss_weight=1.0),
    ),
    roi_head=dict(
        type='StandardRoIHead',
        bbox_roi_extractor=dict(
            type='SingleRoIExtractor',
            roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=2),
            out_channels=8,
            featmap_strides=[4, 8, 16],
        ),
        bbox_head=dict(
            type='Shared2FCBBoxHead',
            in_channels=8,
            fc_out_channels=16,
            roi_feat_size=7,
            num_classes=3,
            bbox_coder=dict(
                type='DeltaXYWHBBoxCoder',
                target_means=[0.0, 0.0, 0.0, 0.0],
                target_stds=[0.1, 0.1, 0.2, 0.2],
            ),
            reg_class_agnostic=True,
            loss_cls=dict(
                type='CrossEntropyLoss',
                use_sigmoid=False,
                loss_weight=1.0,
            ),
            loss_bbox=dict(type='L1Loss', loss_weight=1.0),
        ),
        mask_roi_extractor=dict(
            type='SingleRoIExtractor',
            roi_layer=dict(type='RoIAlign', output_size=14, sampling_ratio=2),
            out_channels=8,
            featmap_strides=[4, 8, 16],
        ),
        mask_head=dict(
            type='FCNMaskHead',
            num_convs=2,
            in_channels=8,
            conv_out_channels=8,
            num_classes=3,
            loss_mask=dict(type='CrossEntropyLoss', use_mask=True, loss_weight=1.0),
        ),
    ),
    train_cfg=dict(
        rpn=dict(
            assigner=dict(
                type='MaxIoUAssigner',
                pos_iou_thr=0.7,
                neg_iou_thr=0.3,
                min_pos_iou=0.3,
                match_low_quality=True,
                ignore_iof_thr=-1,
            ),
            sampler=dict(
                type='RandomSampler',
                num=64,
                pos_fraction=0.5,
                neg_pos_ub=-1,
                add_gt_as_proposals=False,
            ),
            allowed_border=-1,
            pos_weight=-1,
            debug=False,
        ),
        rpn_proposal=dict(
            nms_pre=200,
            max_per_img=100,
            nms=dict(type='nms', iou_threshold=0.7),
            min_bbox_size=0,
        ),
        rcnn=dict(
            assigner=dict(
                type='MaxIoUAssigner',
                pos_iou_thr=0.5,
                neg_iou_thr=0.5,
                min_pos_iou=0.5,
                match_low_quality=True,
                ignore_iof_thr=-1,
            ),
            sampler=dict(
                type='RandomSampler',
                num=64,
                pos_fraction=0.25,
                neg_pos_ub=-1,
                add_gt_as_proposals=True,
            ),
            mask_size=28,
            pos_weight=-1,
            debug=False,
        ),
    ),
    test_cfg=dict(
        rpn=dict(
            nms_pre=200,
            max_per_img=50,
            nms=dict(type='nms', iou_threshold=0.7),
            min_bbox_size=0,
        ),
        rcnn=dict(
            score_thr=0.0,
            nms=dict(type='nms', iou_threshold=0.5),
            max_per_img=20,
            mask_thr_binary=0.5,
        ),
    ),
    _scope_='sparsevit',
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(64, 64), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(64, 64), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True, _scope_='sparsevit'),
    batch_sampler=None,
    dataset=dict(
        type='CocoDataset',
        data_root='/home/user/work_dirs/data/shapes-902c444e/',
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='train/'),
        metainfo=dict(classes=('circle', 'triangle', 'square')),
        filter_cfg=dict(filter_empty_gt=True, min_size=1),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            dict(type='Resize', scale=(64, 64), keep_ratio=True),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackDetInputs'),
        ],
        _scope_='sparsevit',
    ),
)
val_dataloader = dict(
    batch_size=2,
    num_workers=0,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False, _scope_='sparsevit'),
    dataset=dict(
        type='CocoDataset',
        data_root='/home/user/work_dirs/data/shapes-902c444e/',
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='val/'),
        metainfo=dict(classes=('circle', 'triangle', 'square')),
        test_mode=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(64, 64), keep_ratio=True),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            dict(
                type='PackDetInputs',
                meta_keys=(
                    'img_id',
                    'img_path',
                    'ori_shape',
                    'img_shape',
                    'scale_factor',
                ),
            ),
        ],
        _scope_='sparsevit',
    ),
)
test_dataloader = dict(
    batch_size=2,
    num_workers=0,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False, _scope_='sparsevit'),
    dataset=dict(
        type='CocoDataset',
        data_root='/home/user/work_dirs/data/shapes-902c444e/',
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='val/'),
        metainfo=dict(classes=('circle', 'triangle', 'square')),
        test_mode=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(64, 64), keep_ratio=True),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            dict(
                type='PackDetInputs',
                meta_keys=(
                    'img_id',
                    'img_path',
                    'ori_shape',
                    'img_shape',
                    'scale_factor',
                ),
            ),
        ],
        _scope_='sparsevit',
    ),
)
val_evaluator = dict(
    type='CocoMetric',
    ann_file='/home/user/work_dirs/data/shapes-902c444e/annotations/instances_val.json',
    metric=['bbox', 'segm'],
    format_only=False,
    _scope_='sparsevit',
)
test_evaluator = dict(
    type='CocoMetric',
    ann_file='/home/user/work_dirs/data/shapes-902c444e/annotations/instances_val.json',
    metric=['bbox', 'segm'],
    format_only=False,
    _scope_='sparsevit',
)
iterations = 700
train_cfg = dict(
    type='IterBasedTrainLoop',
    max_iters=1,
    val_interval=1000000,
    _scope_='sparsevit',
)
val_cfg = dict(type='ValLoop', _scope_='sparsevit')
test_cfg = dict(type='TestLoop', _scope_='sparsevit')
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=0.01,
        by_epoch=False,
        begin=0,
        end=50,
        _scope_='sparsevit',
    ),
    dict(
        type='CosineAnnealingLR',
        by_epoch=False,
        begin=50,
        end=700,
        eta_min_ratio=0.02,
        _scope_='sparsevit',
    ),
]
optim_wrapper = dict(
    type='OptimWrapper',
    clip_grad=dict(max_norm=5.0, norm_type=2),
    paramwise_cfg=dict(
        custom_keys=dict(
            relative_position_bias_table=dict(decay_mult=0.0),
            norm=dict(decay_mult=0.0),
        ),
    ),
    optimizer=dict(type='AdamW', lr=0.001, betas=(0.9, 0.999), weight_decay=0.05),
    _scope_='sparsevit',
)
default_hooks = dict(
    timer=dict(type='IterTimerHook', _scope_='sparsevit'),
    logger=dict(type='LoggerHook', interval=1, _scope_='sparsevit'),
    param_scheduler=dict(type='ParamSchedulerHook', _scope_='sparsevit'),
    checkpoint=dict(
        type='CheckpointHook',
        by_epoch=False,
        interval=1,
        max_keep_ckpts=2,
        _scope_='sparsevit',
    ),
    sampler_seed=dict(type='DistSamplerSeedHook', _scope_='sparsevit'),
)
log_processor = dict(
    type='LogProcessor',
    window_size=20,
    by_epoch=False,
    _scope_='sparsevit',
)
env_cfg = dict(mp_cfg=dict(mp_start_method='fork', opencv_num_threads=1))
adapt_iterations = 240
finetune_iterations = 150
phases = dict(
    adapt=dict(
        train_cfg=dict(max_iters=1),
        optim_wrapper=dict(optimizer=dict(lr=0.0005)),
        param_scheduler=[
            dict(
                type='CosineAnnealingLR',
                by_epoch=False,
                begin=0,
                end=240,
                eta_min_ratio=0.1,
                _scope_='sparsevit',
            ),
        ],
    ),
    finetune=dict(
        train_cfg=dict(max_iters=2),
        optim_wrapper=dict(optimizer=dict(lr=0.0003)),
        param_scheduler=[
            dict(
                type='CosineAnnealingLR',
                by_epoch=False,
                begin=0,
                end=150,
                eta_min_ratio=0.02,
                _scope_='sparsevit',
            ),
        ],
    ),
)
resize = dict(type='Resize', scale=(64, 64), keep_ratio=True)
metainfo = dict(classes=('circle', 'triangle', 'square'), _delete_=True)
