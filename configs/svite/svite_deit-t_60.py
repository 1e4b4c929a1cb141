"""SViTE: DeiT-T with 60 % of its connections at zero."""

_base_ = ["../_base_/svite_deit-t.py"]
model = dict(backbone=dict(svite=dict(density=0.4)))
