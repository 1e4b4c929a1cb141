# The paper's configuration for 35 ms (batch 4 of 672x672 on an RTX A6000; 47.8 ms dense).
_base_ = "./mask_rcnn_sparsevit.py"

model = dict(
    backbone=dict(
        pruning_ratios=[[0.6, 0.6], [0.0, 0.0], [0.2, 0.2, 0.4, 0.4, 0.5, 0.5], [0.0, 0.0]]
    )
)

# the adapted weights, where mmdet's tools leave them
load_from = "work_dirs/mask_rcnn_sparsevit_saa/epoch_12.pth"
