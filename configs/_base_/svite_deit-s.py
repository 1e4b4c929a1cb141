"""DeiT-S as SViTE trains it (Chen et al., arXiv 2106.04533): 600 epochs of DeiT's recipe on 8 GPUs
with 64 images each. To inherit from; what is sparse is the heir's ``svite``."""

_base_ = ["./imagenet_deit.py"]
custom_imports = dict(
    imports=["sparsevit.models", "sparsevit.models.svite"], allow_failed_imports=False
)

model = dict(
    backbone=dict(
        type="SViTE",
        arch="deit-small",
        img_size=224,
        patch_size=16,
        drop_path_rate=0.1,
        svite=dict(update_interval=15000),
    ),
    neck=None,
    head=dict(type="VisionTransformerClsHead", num_classes=1000, in_channels=384),
    init_cfg=[
        dict(type="TruncNormal", layer="Linear", std=0.02),
        dict(type="Constant", layer="LayerNorm", val=1.0, bias=0.0),
    ],
)
train_dataloader = dict(batch_size=64)

# lr = 5e-4 * images of all processes / 512
learning_rate = 5e-4
optim_wrapper = dict(
    type="AmpOptimWrapper",
    optimizer=dict(type="AdamW", lr=learning_rate, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys={".cls_token": dict(decay_mult=0.0), ".pos_embed": dict(decay_mult=0.0)},
    ),
)
epochs, warmup = 600, 5
train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=10)
val_cfg = dict()
test_cfg = dict()
param_scheduler = [
    dict(
        type="LinearLR",
        start_factor=1e-3,
        by_epoch=True,
        begin=0,
        end=warmup,
        convert_to_iter_based=True,
    ),
    dict(
        type="CosineAnnealingLR",
        eta_min=1e-5,
        by_epoch=True,
        begin=warmup,
        end=epochs,
        convert_to_iter_based=True,
    ),
]
custom_hooks = [
    # an average of 0.99996, as sparse as the model
    dict(type="EMAHook", ema_type="SparseEMA", momentum=4e-5, priority="ABOVE_NORMAL")
]
