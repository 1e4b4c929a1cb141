# Sparsity-aware adaptation: 12 epochs with new random ratios at every iteration.
_base_ = "./mask_rcnn_sparsevit.py"

custom_imports = dict(
    imports=["sparsevit.models", "sparsevit.engine.hooks"], allow_failed_imports=False
)

custom_hooks = [dict(type="RandomSparsityHook")]

train_cfg = dict(max_epochs=12)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type="MultiStepLR", begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1),
]

# mmdet's own weights of the dense base; put your pretrain's here
load_from = "https://download.openmmlab.com/mmdetection/v2.0/swin/mask_rcnn_swin-t-p4-w7_fpn_fp16_ms-crop-3x_coco/mask_rcnn_swin-t-p4-w7_fpn_fp16_ms-crop-3x_coco_20210908_165006-90a4008c.pth"
