"""What executes a backbone: PyTorch eagerly or compiled, or a runtime that is given its graph.

>>> run = prepare("openvino", backbone, images)  # at the sparsity that the backbone is set to
>>> feature_maps = run(images)
"""

from sparsevit.latency.backends.base import Run
from sparsevit.latency.backends.registry import BACKENDS, PRECISIONS, prepare, require_backend

__all__ = ["BACKENDS", "PRECISIONS", "Run", "prepare", "require_backend"]
