"""S2ViTE: DeiT-S without 30 % of its structure, 70 % of heads and 70 % of neurons kept."""

_base_ = ["../_base_/svite_deit-s.py"]
model = dict(backbone=dict(svite=dict(heads=0.7, neurons=0.7)))
