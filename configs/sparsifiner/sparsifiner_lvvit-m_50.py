"""Sparsifiner: LV-ViT-M whose queries keep 50 % of the keys."""

_base_ = ["../_base_/sparsifiner_lvvit-m.py"]
model = dict(backbone=dict(keep_rate=0.5))
