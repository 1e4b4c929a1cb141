# Sparsity-aware adaptation: a third of the dense schedule, new random ratios at every iteration.
_base_ = "./upernet_sparsevit-t_ade20k.py"

custom_imports = dict(
    imports=["sparsevit.models", "sparsevit.engine.hooks"], allow_failed_imports=False
)

custom_hooks = [dict(type="RandomSparsityHook")]

train_cfg = dict(max_iters=53_000)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type="PolyLR", eta_min=0.0, power=1.0, begin=1500, end=53_000, by_epoch=False),
]
