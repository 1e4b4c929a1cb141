"""Sparsifiner of DeiT-B. To inherit from; what its queries keep is the heir's."""

_base_ = ["./sparsifiner_schedule.py"]
model = dict(
    backbone=dict(
        type="SparsifinerDeiT",
        arch="deit-base",
        img_size=224,
        patch_size=16,
        sparsifiner=dict(keep_rate=0.25, first_stage=0.1),
    ),
    neck=None,
    head=dict(type="VisionTransformerClsHead", num_classes=1000, in_channels=768),
)
