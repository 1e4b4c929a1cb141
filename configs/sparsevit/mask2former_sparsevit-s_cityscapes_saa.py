# Sparsity-aware adaptation: a third of the dense schedule, new random ratios at every iteration.
_base_ = "./mask2former_sparsevit-s_cityscapes.py"

custom_imports = dict(
    imports=["sparsevit.models", "sparsevit.engine.hooks"], allow_failed_imports=False
)

custom_hooks = [dict(type="RandomSparsityHook")]

train_cfg = dict(max_iters=30_000)
param_scheduler = [dict(type="PolyLR", eta_min=0, power=0.9, begin=0, end=30_000, by_epoch=False)]
