"""SViTE: DeiT-S with 40 % of its connections at zero."""

_base_ = ["../_base_/svite_deit-s.py"]
model = dict(backbone=dict(svite=dict(density=0.6)))
