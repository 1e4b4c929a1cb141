# Dense UPerNet, Swin-T, ADE20K: 160 000 iterations on crops of 512x512: mmseg's own.
_base_ = "mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py"

custom_imports = dict(imports=["sparsevit.models"], allow_failed_imports=False)
