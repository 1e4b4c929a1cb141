"""What holds of every library's model that was made sparse, as checks that its tests call."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Sequence
from typing import Any

import torch
from skipping_reference import skipping
from torch import Tensor, nn

from sparsevit import densify, sparsify
from sparsevit.sparsity.handle import SparsityHandle

Place = Callable[..., Any]


def randomised(model: nn.Module, std: float = 0.3) -> nn.Module:
    """The model for inference, with parameters that all count."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data.normal_(std=std)
    return model.eval()


def images(batch: int, size: Sequence[int], seed: int = 1) -> Tensor:
    """(batch, 3, height, width), brighter in some places than in others."""
    generator = torch.Generator().manual_seed(seed)
    strength = torch.rand(batch, 1, *size, generator=generator) * 2
    return torch.randn(batch, 3, *size, generator=generator) * strength


def maps(out: Any) -> list[Tensor]:
    return list(out) if isinstance(out, (list, tuple)) else [out]


def assert_same(ours: Any, theirs: Any, atol: float = 1e-5) -> None:
    for mine, other in zip(maps(ours), maps(theirs), strict=True):
        torch.testing.assert_close(mine, other, atol=atol, rtol=1e-5)


def check_dense(model: nn.Module, x: Tensor) -> None:
    """At ratio 0 the outputs are the library's, and the input stays as it is."""
    before = x.clone()
    with torch.no_grad():
        theirs = model(x)
        sparse = sparsify(copy.deepcopy(model))
        assert_same(sparse(x), theirs)
        assert_same(sparse(x), theirs)
    torch.testing.assert_close(x, before, rtol=0, atol=0)


def check_skipping(
    model: nn.Module,
    stages: Callable[[nn.Module], list[list[nn.Module]]],
    place: Place,
    ratios: Sequence[float],
    x: Tensor,
    atol: float = 1e-5,
) -> None:
    """At these ratios, one a stage, outputs and gradients are those of the reference."""
    ours = sparsify(copy.deepcopy(model), by_stage(model, ratios))
    blocks = stages(model)
    of_blocks = [[ratio] * len(run) for run, ratio in zip(blocks, ratios, strict=True)]
    with skipping(blocks, of_blocks, place):
        with torch.no_grad():
            assert_same(ours(x), model(x), atol)
        grads = [gradients(each, x) for each in (ours, model)]
    for name, mine in grads[0].items():
        theirs = grads[1][name]
        scale = max(1.0, float(theirs.abs().max()))
        torch.testing.assert_close(
            mine / scale, theirs / scale, atol=atol, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )


def by_stage(model: nn.Module, ratios: Sequence[float]) -> dict[str, float]:
    """The ratios by knob; the model stays as it is."""
    space = SparsityHandle(sparsify(copy.deepcopy(model))).space
    groups = list(dict.fromkeys(knob.group for knob in space.knobs))
    of_group = dict(zip(groups, ratios, strict=True))
    return {knob.name: of_group[knob.group] for knob in space.knobs}


def gradients(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Of every parameter and of the images, of a loss in which every output counts."""
    x = x.clone().requires_grad_()
    model.zero_grad()
    generator = torch.Generator().manual_seed(2)
    loss = sum(
        (out * torch.randn(out.shape, generator=generator, dtype=x.dtype)).sum()
        for out in maps(model(x))
    )
    loss.backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert x.grad is not None
    return {**found, "images": x.grad}


def check_training_draws(model: nn.Module, x: Tensor) -> None:
    """Stochastic depth drops the images that it drops in the dense model."""
    sparse = sparsify(copy.deepcopy(model)).train()
    model.train()
    outs = []
    for each in (sparse, model):
        torch.manual_seed(3)
        outs.append(each(x))
    assert_same(*outs)
    with torch.no_grad():
        assert not torch.allclose(maps(model.eval()(x))[-1], maps(outs[1])[-1], atol=1e-3)


def check_undone(model: nn.Module, x: Tensor) -> None:
    """``state_dict`` keeps its keys, and ``densify`` gives back the classes and the outputs."""
    classes = [type(module) for module in model.modules()]
    keys = list(model.state_dict())
    with torch.no_grad():
        before = model(x)
        assert sparsify(model, 0.5) is model
        assert list(model.state_dict()) == keys
        assert not torch.equal(maps(model(x))[-1], maps(before)[-1])
        assert densify(model) is model
        assert_same(model(x), before, atol=0)
    assert [type(module) for module in model.modules()] == classes
    assert list(model.state_dict()) == keys
    assert not any(
        "group" in vars(module) or "_sparsity" in vars(module) for module in model.modules()
    )


def check_copies(model: nn.Module, x: Tensor) -> None:
    """A copy, and what was saved and loaded, are sparse models of their own, also after a step."""
    sparsify(model, 0.5)
    maps(model(x))[-1].sum().backward()
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    others = (copy.deepcopy(model), torch.load(file, weights_only=False))
    with torch.no_grad():
        expected = model(x)
        for other in others:
            assert_same(other(x), expected, atol=0)
            handle = SparsityHandle(other)
            handle.set(handle.space.uniform(0.0))
            assert not torch.equal(maps(other(x))[-1], maps(expected)[-1])
            assert_same(model(x), expected, atol=0)


def check_set_again(model: nn.Module, x: Tensor) -> None:
    """A model that is sparse already gets the ratios."""
    sparsify(model, 0.7)
    fresh = sparsify(densify(copy.deepcopy(model)), 0.3)
    sparsify(model, 0.3)
    assert SparsityHandle(model).get() == SparsityHandle(fresh).get()
    with torch.no_grad():
        assert_same(model(x), fresh(x), atol=0)


def check_hooks(model: nn.Module, blocks: Sequence[nn.Module], x: Tensor) -> None:
    """Maps that hooks on blocks see are not overwritten later."""
    sparsify(model, 0.5)
    seen: list[tuple[Tensor, Tensor]] = []

    def keep(*found: Any) -> None:
        for value in found[1:]:
            each = value[0] if isinstance(value, tuple) else value
            seen.append((each, each.clone()))

    with torch.no_grad():
        expected = model(x)
        for register in ("register_forward_hook", "register_forward_pre_hook"):
            handles = [getattr(block, register)(keep) for block in blocks]
            assert_same(model(x), expected, atol=0)
            for handle in handles:
                handle.remove()
    assert len(seen) == 3 * len(blocks)
    for value, then in seen:
        torch.testing.assert_close(value, then, rtol=0, atol=0)
