"""Whole models of Hugging Face transformers: all their window attention is found and skips."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("transformers")

from huggingface_models import assert_alike, tensors, twin
from huggingface_whole import WHOLE, built

from sparsevit import densify, sparsify
from sparsevit.methods.windows.sparsify import SparseBlock
from sparsevit.sparsity.handle import SparsityHandle


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_model_is_the_same_at_ratio_0_differs_at_half_and_comes_back(name):
    model = built(name)
    dense = twin(model)
    _, inputs, windowed = WHOLE[name]
    with torch.no_grad():
        expected = dense(**inputs())
        sparsify(model)
        assert sum(isinstance(module, SparseBlock) for module in model.modules()) == windowed
        assert_alike(model(**inputs()), expected)

        sparsify(model, 0.5)
        half = list(tensors(model(**inputs())))
        full = list(tensors(expected))
        assert len(half) == len(full)
        assert any(not torch.equal(a, b) for a, b in zip(half, full, strict=True))
        assert all(
            torch.equal(a, b)
            for a, b in zip(tensors(densify(model)(**inputs())), full, strict=True)
        )


@pytest.mark.parametrize("name", WHOLE)
def test_knobs_are_named_after_the_modules_that_hold_the_blocks(name):
    model = sparsify(built(name))
    for knob in SparsityHandle(model).get():
        assert model.get_submodule(knob) is not None
