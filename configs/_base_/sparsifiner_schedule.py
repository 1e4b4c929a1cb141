"""How Sparsifiner is trained on ImageNet (Wei et al., arXiv 2303.13755, section 4.1): from a dense
model, 5 epochs in which only the predictors learn, then 45 of everything with that model as the
teacher. To inherit from; the model is the heir's."""

_base_ = ["./imagenet_deit.py"]
custom_imports = dict(
    imports=["sparsevit.models", "sparsevit.models.sparsifiner_backbones"],
    allow_failed_imports=False,
)

optim_wrapper = dict(
    type="AmpOptimWrapper",
    optimizer=dict(type="AdamW", lr=3e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys={".cls_token": dict(decay_mult=0.0), ".pos_embed": dict(decay_mult=0.0)},
    ),
)
epochs, first_stage, warmup = 50, 5, 3
train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=5)
val_cfg = dict()
test_cfg = dict()
by_iteration = dict(by_epoch=True, convert_to_iter_based=True)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, begin=0, end=warmup, **by_iteration),
    dict(type="CosineAnnealingLR", eta_min=2e-4, begin=warmup, end=first_stage, **by_iteration),
    # from 2e-4 to the second stage's 8e-5
    dict(
        type="LinearLR",
        start_factor=1e-3,
        end_factor=0.4,
        begin=first_stage,
        end=first_stage + warmup,
        **by_iteration,
    ),
    dict(
        type="CosineAnnealingLR",
        eta_min=2e-6,
        begin=first_stage + warmup,
        end=epochs,
        **by_iteration,
    ),
]
train_dataloader = dict(batch_size=64)
