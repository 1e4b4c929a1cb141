"""Sparsifiner: DeiT-B whose queries keep 10 % of the keys."""

_base_ = ["../_base_/sparsifiner_deit-b.py"]
model = dict(backbone=dict(sparsifiner=dict(keep_rate=0.1)))
