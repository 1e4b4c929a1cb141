# Sparsity-aware adaptation: new random ratios at every iteration.
_base_ = "./bevdet_sparsevit-t_512x1408.py"

custom_imports = dict(
    imports=["sparsevit.models", "sparsevit.data.nuscenes.registered", "sparsevit.engine.hooks"],
    allow_failed_imports=False,
)

custom_hooks = [dict(type="RandomSparsityHook")]
