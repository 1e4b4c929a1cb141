"""Sparsifiner: DeiT-B whose queries keep 70 % of the keys."""

_base_ = ["../_base_/sparsifiner_deit-b.py"]
model = dict(backbone=dict(sparsifiner=dict(keep_rate=0.7)))
