"""What tells one model's latency from another's."""

from __future__ import annotations

import hashlib

from torch import nn

from sparsevit.sparsity.handle import SparsityHandle


def structure_digest(model: nn.Module) -> str:
    """SHA-256 of what a model consists of: the same for other weights and another sparsity.

    Modules by name and class, parameters and buffers by name, shape and type, the knobs, and what a
    detector does with its predictions.
    """
    digest = hashlib.sha256()
    for name, module in model.named_modules():
        digest.update(f"{name} {type(module).__module__}.{type(module).__qualname__}\n".encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
    digest.update(repr(SparsityHandle(model).space.to_dict()).encode())
    digest.update(repr(getattr(model, "test_cfg", None)).encode())
    return digest.hexdigest()
