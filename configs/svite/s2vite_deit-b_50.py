"""S2ViTE: DeiT-B without 50 % of its structure, 50 % of heads and 50 % of neurons kept."""

_base_ = ["../_base_/svite_deit-b.py"]
model = dict(backbone=dict(svite=dict(heads=0.5, neurons=0.5)))
