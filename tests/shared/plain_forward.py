"""The paper's sparse forward, written plainly: pad, roll, partition, gather, scatter, undo.

Independent of the package: it takes only the parameters of mmdet's modules. Slow on purpose.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def partition(x, ws):
    """(B, H, W, C) -> (B, windows, ws * ws, C)."""
    B, H, W, C = x.shape
    x = x.view(B, H // ws, ws, W // ws, ws, C).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(B, (H // ws) * (W // ws), ws * ws, C)


def merge(windows, ws, H, W):
    """(B, windows, ws * ws, C) -> (B, H, W, C)."""
    B, _, _, C = windows.shape
    x = windows.view(B, H // ws, W // ws, ws, ws, C).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(B, H, W, C)


def shift_mask(H, W, ws, shift, device=None):
    """(windows, ws * ws, ws * ws) mask, one for every window."""
    region = torch.zeros(1, H, W, 1, device=device)
    bands = (slice(0, -ws), slice(-ws, -shift), slice(-shift, None))
    for i, rows in enumerate(bands):
        for j, cols in enumerate(bands):
            region[:, rows, cols] = 3 * i + j
    windows = partition(region, ws)[0, :, :, 0]
    return (windows[:, None, :] != windows[:, :, None]).float() * -100.0


def attend(attn, x, mask):
    """x: (B, K, N, C) windows; mask: (B, K, N, N) or None."""
    B, K, N, C = x.shape
    heads = attn.num_heads
    q, k, v = attn.qkv(x).reshape(B, K, N, 3, heads, C // heads).permute(3, 0, 1, 4, 2, 5)
    logits = (q * attn.scale) @ k.transpose(-2, -1)
    bias = attn.relative_position_bias_table[attn.relative_position_index.flatten()]
    logits = logits + bias.view(N, N, heads).permute(2, 0, 1)
    if mask is not None:
        logits = logits + mask.unsqueeze(2)
    return attn.proj((logits.softmax(-1) @ v).transpose(2, 3).reshape(B, K, N, C))


def run_stage(stage, x, hw, ratios, pad_before_norm, together=1):
    B, L, C = x.shape
    G = B // together
    H, W = hw
    ws = stage.blocks[0].attn.window_size
    pad = (0, 0, 0, -W % ws, 0, -H % ws)
    Hp, Wp = H + -H % ws, W + -W % ws
    magnitude, ranked = None, {}
    for block, ratio in zip(stage.blocks, ratios, strict=True):
        shift = block.attn.shift_size
        if ratio > 0 and magnitude is None:
            magnitude = x.detach().abs().mean(-1).view(B, H, W, 1)

        def windows_of(y, shift=shift):
            y = torch.roll(F.pad(y.view(B, H, W, -1), pad), (-shift, -shift), (1, 2))
            # windows of images that are ranked together are one list
            return partition(y, ws).unflatten(0, (G, together)).flatten(1, 2)

        identity = windows_of(x)
        normed = block.norm1(identity) if pad_before_norm else windows_of(block.norm1(x))
        nW, N = identity.shape[1:3]
        mask = None
        if shift:
            mask = shift_mask(Hp, Wp, ws, shift, x.device).to(x.dtype)
            mask = mask.repeat(together, 1, 1).expand(G, -1, -1, -1)
        kept = torch.arange(nW, device=x.device).expand(G, nW)
        if magnitude is not None:
            if shift not in ranked:
                score = windows_of(magnitude)[..., 0].norm(dim=-1)
                ranked[shift] = score.argsort(dim=1, descending=True)
            kept = ranked[shift][:, : together * int(nW // together * (1 - ratio))]
        if kept.shape[1] == 0:
            continue
        at = kept[:, :, None, None].expand(-1, -1, N, C)
        t, y = identity.gather(1, at), normed.gather(1, at)
        if mask is not None:
            mask = mask.gather(1, kept[:, :, None, None].expand(-1, -1, N, N))
        t = t + attend(block.attn.w_msa, y, mask)
        t = t + block.ffn.layers(block.norm2(t))
        x = identity.scatter(1, at, t).unflatten(1, (together, -1)).flatten(0, 1)
        x = merge(x, ws, Hp, Wp)
        x = torch.roll(x, (shift, shift), (1, 2))[:, :H, :W].reshape(B, L, C)
    return x


def plain_forward(swin, images, ratios, pad_before_norm=False, together=1):
    """Feature maps of a Swin backbone with these ratios (by stage and block), and so many images
    ranked together."""
    x, hw = swin.patch_embed(images)
    if swin.use_abs_pos_embed:
        x = x + swin.absolute_pos_embed
    outs = []
    for i, stage in enumerate(swin.stages):
        x = run_stage(stage, x, hw, ratios[i], pad_before_norm, together)
        if i in swin.out_indices:
            out = getattr(swin, f"norm{i}")(x)
            outs.append(out.view(len(images), *hw, -1).permute(0, 3, 1, 2))
        if stage.downsample:
            x, hw = stage.downsample(x, hw)
    return outs
