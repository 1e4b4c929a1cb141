"""One small set of made scenes for all tests; nothing may change it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparsevit.data.nuscenes.made.make import Scenes, make_scenes
from sparsevit.data.nuscenes.made.spec import VERSION, ScenesSpec
from sparsevit.data.nuscenes.tables import Frame, read_frames

SPEC = ScenesSpec(train=3, val=14, width=96, height=54, objects=(35, 45), seed=5)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    return make_scenes(tmp_path_factory.mktemp("scenes") / "made", SPEC)


@pytest.fixture(scope="session")
def root(scenes: Scenes) -> Path:
    return scenes.root


@pytest.fixture(scope="session")
def frames(root: Path) -> tuple[Frame, ...]:
    return read_frames(root, VERSION, "val")
