"""SViTE: DeiT-S with 50 % of its connections at zero."""

_base_ = ["../_base_/svite_deit-s.py"]
model = dict(backbone=dict(svite=dict(density=0.5)))
