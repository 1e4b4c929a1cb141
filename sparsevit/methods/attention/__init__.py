"""Attention that connects only the pairs that matter (Sparsifiner, arXiv 2303.13755)."""
