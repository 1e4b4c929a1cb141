"""Sparsifiner: DeiT-T whose queries keep 90 % of the keys."""

_base_ = ["../_base_/sparsifiner_deit-t.py"]
model = dict(backbone=dict(sparsifiner=dict(keep_rate=0.9)))
