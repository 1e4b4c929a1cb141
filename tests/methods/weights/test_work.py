"""Multiplications and parameters as masks leave them."""

from __future__ import annotations

import pytest
import svite_models
import torch
from svite_models import Training, classifier

from sparsevit.latency.cost import gmacs, parameters
from sparsevit.methods.weights.shrink import shrink
from sparsevit.sparsity.weights import prunable


def counted(model, images):
    model.eval()
    return gmacs(lambda: model(images), model) * 1e9


def test_products_of_dead_connections_are_not_counted():
    images, _ = svite_models.batch(0)
    trained = Training(classifier(svite={"density": 0.4, "update_interval": 3})).run(5)
    dense = classifier(svite_models.svite.VisionTransformer)
    masks = trained.method.masks
    vain = 0
    for name, mask in masks.items():
        # 16 patches of 4 images, 17 tokens, and one row an image
        rows = 4 * {"patch_embed": 16, "layers": 17}.get(name.split(".")[1], 1)
        vain += rows * int((~mask).sum())
    zeros = sum(
        int((trained.model.get_parameter(n) == 0).sum() - (~m).sum()) for n, m in masks.items()
    )
    assert counted(dense, images) - counted(trained.model, images) == pytest.approx(vain, rel=1e-3)
    total = sum(p.numel() for p in dense.parameters())
    dead = sum(int((~mask).sum()) for mask in masks.values()) + zeros
    assert parameters(trained.model) == total - dead


def test_a_structured_model_counts_as_the_smaller_one_does():
    images, _ = svite_models.batch(0)
    options = {"heads": 0.5, "neurons": 0.6, "update_interval": 3}
    model = Training(classifier(svite=options), total=20).run(20).model
    before = counted(model, images), parameters(model)
    shrink(model)
    model.backbone._sparsity.ratios = {"weights": 0.0}
    assert before[0] == pytest.approx(counted(model, images))
    # biases of dead units are still there
    assert before[1] == pytest.approx(parameters(model), rel=0.05)


@pytest.mark.parametrize("options", [{"density": 0.4}, {"heads": 0.5, "neurons": 0.6}])
def test_weights_that_are_random_count_as_a_training_would_leave_them(options):
    images, _ = svite_models.batch(0)
    fresh = classifier(svite=options)
    trained = Training(classifier(svite=options)).run(1).model
    assert counted(fresh, images) == pytest.approx(counted(trained, images), rel=0.01)
    assert parameters(fresh) == pytest.approx(parameters(trained), rel=0.01)


def test_all_prunable_weights_are_counted():
    model = classifier(svite={"pattern": "2:4"})
    weights = {n: p for n, p in model.named_parameters() if prunable(n, p.shape)}
    halved = sum(p.numel() // 2 for n, p in weights.items() if p.dim() == 2)
    assert parameters(model) == sum(p.numel() for p in model.parameters()) - halved


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs sparse tensor cores")
def test_sparse_tensor_cores_take_two_of_every_four():
    arch = {**svite_models.ARCH, "embed_dims": 64, "feedforward_channels": 128}
    training = Training(classifier(arch=arch, svite={"pattern": "2:4", "update_interval": 2}))
    training.run(5)
    for name, mask in training.method.masks.items():
        if name.startswith("backbone.layers"):
            weight = (training.model.get_parameter(name).detach() * mask).half().cuda()
            packed = torch.sparse.to_sparse_semi_structured(weight)
            assert torch.equal(packed.to_dense(), weight), name
