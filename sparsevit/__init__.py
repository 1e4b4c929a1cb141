"""SparseViT: high-resolution window transformers that skip the windows that hold nothing.

Importing this package is cheap: no torch, no mmdet. The rooms are imported where they are used,
e.g. ``import sparsevit.models`` registers the backbone in mmdet.
"""

__version__ = "0.1.0"
