"""Sparsifiner of DeiT-T. To inherit from; what its queries keep is the heir's."""

_base_ = ["./sparsifiner_schedule.py"]
model = dict(
    backbone=dict(
        type="SparsifinerDeiT",
        arch="deit-tiny",
        img_size=224,
        patch_size=16,
        sparsifiner=dict(keep_rate=0.25, first_stage=0.1),
    ),
    neck=None,
    head=dict(type="VisionTransformerClsHead", num_classes=1000, in_channels=192),
)
