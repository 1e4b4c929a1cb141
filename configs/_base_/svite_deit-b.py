"""DeiT-B as SViTE trains it, with 128 images on each of 8 GPUs; see ``svite_deit-s.py``."""

_base_ = ["./svite_deit-s.py"]
model = dict(
    backbone=dict(arch="deit-base", svite=dict(update_interval=7000)), head=dict(in_channels=768)
)
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
