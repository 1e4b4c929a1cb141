"""DeiT-T as SViTE trains it; see ``svite_deit-s.py``."""

_base_ = ["./svite_deit-s.py"]
model = dict(
    backbone=dict(arch="deit-tiny", svite=dict(update_interval=20000)), head=dict(in_channels=192)
)
