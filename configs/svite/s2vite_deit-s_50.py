"""S2ViTE: DeiT-S without 50 % of its structure, 50 % of heads and 50 % of neurons kept."""

_base_ = ["../_base_/svite_deit-s.py"]
model = dict(backbone=dict(svite=dict(heads=0.5, neurons=0.5)))
