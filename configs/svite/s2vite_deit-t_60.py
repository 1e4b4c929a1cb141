"""S2ViTE: DeiT-T without 60 % of its structure, 40 % of heads and 40 % of neurons kept."""

_base_ = ["../_base_/svite_deit-t.py"]
model = dict(backbone=dict(svite=dict(heads=0.4, neurons=0.4)))
