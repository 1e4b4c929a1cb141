"""SViTE+: DeiT-T with 50 % of its connections at zero and 5 % fewer tokens."""

_base_ = ["../_base_/svite_deit-t.py"]
model = dict(backbone=dict(svite=dict(density=0.5, tokens=0.95)))
