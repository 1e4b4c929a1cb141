"""What several tests of commands share."""

from __future__ import annotations

import pytest

from sparsevit.latency.backends import artefacts
from sparsevit.tasks.detection import backends as detection


@pytest.fixture
def kept_detector(monkeypatch):
    """A format of whole detectors that needs no runtime: they run eagerly, in this process."""
    written = []

    def write(model, images, path):
        written.append(
            (detection.prepare_detector("eager", model, images), model.roi_head.test_cfg.score_thr)
        )
        path.write_text(str(len(written) - 1), encoding="utf-8")
        return path

    def load(path, precision, device):
        return written[int(path.read_text(encoding="utf-8"))][0]

    form = artefacts.Format("kept", ".kept", (), lambda: None, write, load)
    monkeypatch.setitem(detection.FORMATS, "kept", form)
    return form, written
