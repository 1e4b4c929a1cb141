# BEVDet with SparseViT in place of Swin-T: what is searched, and what is finetuned inherits it.
_base_ = "./bevdet_swin-t.py"

model = dict(
    img_backbone=dict(
        type="SparseViT",
        # the share of windows to skip: a number, or a list by stage, or by stage and block
        pruning_ratios=0.0,
        # the whole model starts from a checkpoint, not the backbone from ImageNet
        init_cfg=None,
    )
)

# a tenth of the dense rate, which falls from the first iteration on
optim_wrapper = dict(optimizer=dict(lr=2e-5))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(
        type="CosineAnnealingLR",
        begin=0,
        end=20,
        T_max=20,
        eta_min_ratio=1e-3,
        convert_to_iter_based=True,
    ),
]
