"""Sparsifiner of LV-ViT-M. To inherit from; what its queries keep is the heir's."""

_base_ = ["./sparsifiner_schedule.py"]
model = dict(
    backbone=dict(
        type="Sparsifiner",
        architecture="lvvit",
        img_size=224,
        patch_size=16,
        num_classes=1000,
        embed_dims=512,
        depth=20,
        num_heads=8,
        mlp_ratio=3,
        keep_rate=0.25,
        sparsifiner=dict(first_stage=0.1),
    ),
    neck=None,
    head=dict(type="LogitsHead", num_classes=1000),
)
