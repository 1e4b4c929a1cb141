"""Sparsifiner: LV-ViT-M whose queries keep 40 % of the keys."""

_base_ = ["../_base_/sparsifiner_lvvit-m.py"]
model = dict(backbone=dict(keep_rate=0.4))
