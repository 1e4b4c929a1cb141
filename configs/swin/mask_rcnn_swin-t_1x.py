# Dense Mask R-CNN, Swin-T, 12 epochs at one scale: mmdet's own.
_base_ = "mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py"

# supplies the ops of a missing mmcv._ext
custom_imports = dict(imports=["sparsevit.models"], allow_failed_imports=False)
