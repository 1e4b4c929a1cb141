"""Sparsifiner: LV-ViT-S adapted to any keep rate of each layer, to search the best ones."""

_base_ = ["../_base_/sparsifiner_lvvit-s.py"]
shares = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
model = dict(backbone=dict(sparsifiner=dict(choices=shares)))
