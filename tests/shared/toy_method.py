"""A second kind of sparsity, a few lines long: linear layers that leave their weakest outputs out.

It shares nothing with windows, and nothing in the package knows of it.
"""

from __future__ import annotations

import tiny
import torch
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import nn

from sparsevit.methods import METHODS, Method
from sparsevit.sparsity import Configuration, Knob, Space
from sparsevit.sparsity.handle import sparse_parts

CONFIG = tiny.CONFIG.replace(
    "backbone=dict(embed_dims=8, depths=[2, 2, 4, 2], num_heads=[1, 1, 2, 4])",
    'backbone=dict(_delete_=True, type="ToyBackbone", widths=(8, 16, 32, 64))',
)
CONFIG += 'custom_imports = dict(imports=["toy_method"], allow_failed_imports=False)\n'


class Toy(Method):
    """Counts its steps, holds how strongly each output was trained, and keeps weights small."""

    name = "toy"
    weight = 1e-3

    def __init__(self, model):
        super().__init__(model)
        self.iterations = self.steps = 0
        self.trained = {}
        self.seen = []

    @classmethod
    def config_has(cls, cfg):
        model = cfg.get("model") or {}
        return (model.get("backbone") or {}).get("type") == "ToyBackbone"

    @classmethod
    def convert_config(cls, cfg):
        return cfg.copy() if cls.config_has(cfg) else super().convert_config(cfg)

    def before_training(self, iterations, seed):
        self.iterations = iterations

    def before_step(self, step):
        self.seen.append(step)

    def extra_loss(self):
        return {"size": self.weight * sum(layer.weight.abs().sum() for layer in self.layers())}

    def after_optimizer_step(self, step, optimizer):
        self.steps += 1
        for n, layer in enumerate(self.layers()):
            self.trained[str(n)] = self.trained.get(str(n), 0) + layer.weight.grad.norm(dim=1)

    def state_dict(self):
        return {"steps": self.steps, "trained": dict(self.trained)}

    def load_state_dict(self, state):
        self.steps, self.trained = state["steps"], dict(state["trained"])

    def work(self, counted):
        return counted - sum(layer.vain() for layer in self.layers())

    def picture(self, image, pixels, out):
        out.write_text(" ".join(str(int(layer.kept().sum())) for layer in self.layers()))
        return out

    def layers(self):
        return [mix for part in sparse_parts(self.model).values() for mix in part.mixes]


class MaskedLinear(nn.Linear):
    """Gives 0 for a share of its outputs, those of the smallest weights."""

    ratio = 0.0
    rows = 0

    def kept(self):
        count = self.out_features - round(self.ratio * self.out_features)
        mask = torch.zeros(self.out_features, dtype=torch.bool)
        return mask.index_fill(0, self.weight.norm(dim=1).topk(count).indices, True)

    def forward(self, x):
        self.rows = x.numel() // self.in_features
        return super().forward(x) * self.kept()

    def vain(self):
        return self.rows * self.in_features * int((~self.kept()).sum())


@MODELS.register_module()
class ToyBackbone(BaseModule):
    """Four maps, a convolution and a masked layer each."""

    sparsity_method = Toy

    def __init__(self, widths):
        super().__init__()
        ins, strides = (3, *widths[:-1]), (4, 2, 2, 2)
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, s, s) for i, o, s in zip(ins, widths, strides, strict=True)
        )
        self.mixes = nn.ModuleList(MaskedLinear(width, width) for width in widths)

    def forward(self, x):
        maps = []
        for conv, mix in zip(self.convs, self.mixes, strict=True):
            x = conv(x).relu()
            x = x + mix(x.movedim(1, -1)).movedim(-1, 1)
            maps.append(x)
        return tuple(maps)

    def sparsity_space(self):
        names = [f"mixes.{n}" for n in range(len(self.mixes))]
        return Space(Knob(name, name, (0.0, 0.25, 0.5, 0.75), 1) for name in names)

    def get_sparsity(self):
        ratios = (mix.ratio for mix in self.mixes)
        return Configuration(dict(zip(self.sparsity_space().names, ratios, strict=True)))

    def set_sparsity(self, configuration):
        for mix, ratio in zip(self.mixes, configuration.values(), strict=True):
            mix.ratio = ratio


METHODS["toy"] = Toy
