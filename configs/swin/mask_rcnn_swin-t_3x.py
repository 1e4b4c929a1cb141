# Dense Mask R-CNN, Swin-T, 36 epochs, many scales and crops, mixed precision: mmdet's own. The
# paper's sparse models start from this one.
_base_ = "mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_amp-ms-crop-3x_coco.py"

# supplies the ops of a missing mmcv._ext
custom_imports = dict(imports=["sparsevit.models"], allow_failed_imports=False)
