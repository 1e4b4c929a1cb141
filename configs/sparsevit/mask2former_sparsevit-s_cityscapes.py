# Mask2Former with SparseViT in place of Swin-S: to search, and to inherit from.
# Trained as its dense base, at a tenth of its learning rate.
_base_ = "../swin/mask2former_swin-s_cityscapes.py"

model = dict(
    backbone=dict(
        type="SparseViT",
        # the share of windows to skip: a number, or a list by stage, or by stage and block
        pruning_ratios=0.0,
        # the whole segmentor starts from a checkpoint, not the backbone from ImageNet
        init_cfg=None,
    )
)

optim_wrapper = dict(optimizer=dict(lr=1e-5))
