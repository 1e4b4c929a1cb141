# Mask R-CNN with SparseViT in place of Swin-T: what is searched, and what is finetuned inherits it.
# 36 epochs (warm-up of 1000 iterations, steps at 27 and 33), many scales and crops and mixed
# precision, as its dense base has them; tested at 672x672.
_base_ = "../swin/mask_rcnn_swin-t_3x.py"

model = dict(
    backbone=dict(
        type="SparseViT",
        # the share of windows to skip: a number, or a list by stage, or by stage and block
        pruning_ratios=0.0,
        # the whole detector starts from a checkpoint, not the backbone from ImageNet
        init_cfg=None,
    )
)

optim_wrapper = dict(optimizer=dict(lr=1e-5))

test_pipeline = [
    dict(type="LoadImageFromFile", backend_args=None),
    dict(type="Resize", scale=(672, 672), keep_ratio=False),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(
        type="PackDetInputs",
        meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
    ),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))

default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))
