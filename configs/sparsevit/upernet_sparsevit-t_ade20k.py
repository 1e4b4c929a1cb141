# UPerNet with SparseViT in place of Swin-T: what is searched, and what is finetuned inherits it.
_base_ = "../swin/upernet_swin-t_ade20k.py"

model = dict(backbone=dict(type="SparseViT", pruning_ratios=0.0, init_cfg=None))

optim_wrapper = dict(optimizer=dict(lr=6e-6))
