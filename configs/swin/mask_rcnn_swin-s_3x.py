# Dense Mask R-CNN, Swin-S, 36 epochs, many scales and crops, mixed precision: mmdet's own.
_base_ = "mmdet::swin/mask-rcnn_swin-s-p4-w7_fpn_amp-ms-crop-3x_coco.py"

# supplies the ops of a missing mmcv._ext
custom_imports = dict(imports=["sparsevit.models"], allow_failed_imports=False)
