"""Small classifiers whose attention connects what predictors choose."""

from __future__ import annotations

import torch
from torch import nn

import sparsevit.models.sparsifiner_backbones as backbones

ARCH = {"embed_dims": 16, "num_layers": 2, "num_heads": 2, "feedforward_channels": 32}
OWN = {
    **{"architecture": "deit", "img_size": 32, "patch_size": 4, "num_classes": 5},
    **{"embed_dims": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 2},
}
PREDICTOR = "mask_predictor"


class Classifier(nn.Module):
    def __init__(self, backbone, head):
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images):
        return self.head(self.backbone(images))


def deit(kind=backbones.VisionTransformer, **options):
    torch.manual_seed(0)
    model = kind(arch=dict(ARCH), img_size=32, patch_size=4, **options)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3)
    return model


def classifier(kind="deit", **options):
    """Ours by conversion, or ours from the start."""
    torch.manual_seed(0)
    if kind == "deit":
        head = backbones.MODELS.build(
            {"type": "VisionTransformerClsHead", "num_classes": 5, "in_channels": 16}
        )
        model = Classifier(deit(backbones.SparsifinerDeiT, sparsifiner=options), head)
    else:
        architecture = {**OWN, "architecture": kind}
        of_model = {n: options.pop(n) for n in ("keep_rate", "prune_tokens") if n in options}
        backbone = backbones.Sparsifiner(**architecture, **of_model, sparsifiner=options)
        model = Classifier(backbone, backbones.LogitsHead(5))
    for name, parameter in model.named_parameters():
        if PREDICTOR not in name and "norm" not in name and "ln" not in name:
            parameter.data.normal_(std=0.2)
    return model
