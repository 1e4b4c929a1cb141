# Dense Mask2Former, Swin-S, Cityscapes: 90 000 iterations on crops of 512x1024, tested on whole
# images of 1024x2048: mmseg's own.
_base_ = "mmseg::mask2former/mask2former_swin-s_8xb2-90k_cityscapes-512x1024.py"

# supplies the ops of a missing mmcv._ext
custom_imports = dict(imports=["sparsevit.models"], allow_failed_imports=False)
