"""ImageNet as DeiT is trained on it (Touvron et al., arXiv 2012.12877, table 9): RandAugment and
erasing, three augmentations of an image in an epoch, mixup and CutMix, smoothed labels. To inherit
from; the model and the schedule are the heir's.

Images lie in data/imagenet, ``train/CLASS/*.JPEG`` and ``val/CLASS/*.JPEG``."""

_base_ = [
    "mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py",
    "mmpretrain::_base_/default_runtime.py",
]
custom_imports = dict(imports=["sparsevit.models"], allow_failed_imports=False)

train_dataloader = dict(
    sampler=dict(_delete_=True, type="RepeatAugSampler", num_repeats=3, shuffle=True)
)
model = dict(
    type="ImageClassifier",
    head=dict(loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1, mode="original")),
    train_cfg=dict(augments=[dict(type="Mixup", alpha=0.8), dict(type="CutMix", alpha=1.0)]),
)
