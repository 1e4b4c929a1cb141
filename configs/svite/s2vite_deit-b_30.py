"""S2ViTE: DeiT-B without 30 % of its structure, 70 % of heads and 70 % of neurons kept."""

_base_ = ["../_base_/svite_deit-b.py"]
model = dict(backbone=dict(svite=dict(heads=0.7, neurons=0.7)))
