"""SViTE: DeiT-B with 30 % of its connections at zero."""

_base_ = ["../_base_/svite_deit-b.py"]
model = dict(backbone=dict(svite=dict(density=0.7)))
