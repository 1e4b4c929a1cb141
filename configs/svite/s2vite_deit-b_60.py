"""S2ViTE: DeiT-B without 60 % of its structure, 40 % of heads and 40 % of neurons kept."""

_base_ = ["../_base_/svite_deit-b.py"]
model = dict(backbone=dict(svite=dict(heads=0.4, neurons=0.4)))
