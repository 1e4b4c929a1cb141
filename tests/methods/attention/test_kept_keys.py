"""The picture of the keys that a query keeps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from sparsifiner_models import classifier

from sparsevit.methods import methods_in
from sparsevit.methods.attention.picture import kept_keys_figure

IMAGE = np.full((32, 48, 3), 200, np.uint8)


def test_a_panel_for_each_layer_and_head_shows_what_the_query_keeps():
    masks = {f"blocks.{i}": torch.zeros(2, 25, 25, dtype=torch.bool) for i in range(6)}
    query, key = 8, 3
    for mask in masks.values():
        mask[:, 1 + query, 1 + key] = True
    masks["blocks.0"][1, 1 + query] = True
    panels = kept_keys_figure(IMAGE, masks, query).axes
    assert len(panels) == 8
    titles = [panel.get_title() for panel in panels]
    assert titles[:2] == ["blocks.0, head 0: 4% kept", "blocks.0, head 1: 100% kept"]
    assert titles[-1].startswith("blocks.5")
    drawn = panels[0].images[0].get_array()
    assert np.array_equal(drawn[:8, 24:32], IMAGE[:8, 24:32])  # 4 by 6 patches of 8 pixels
    assert drawn[8:].max() < 100
    (marked,) = panels[0].patches
    assert marked.get_xy() == (16, 8)


@pytest.mark.parametrize("kind", ["deit", "lvvit"])
def test_a_model_is_drawn_as_it_is_set(kind, tmp_path):
    model = classifier(kind)
    model.eval()
    out = methods_in(model)[0].picture(
        torch.randn(1, 3, 32, 32), np.zeros((32, 32, 3), np.uint8), tmp_path / "new" / "keys.png"
    )
    assert imread(out).shape[2] == 4
    assert model.backbone.training is False
