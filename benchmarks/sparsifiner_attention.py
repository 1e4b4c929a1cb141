"""Sparsifiner's attention with its prediction, beside PyTorch's fused dense attention.

    python benchmarks/sparsifiner_attention.py        # writes results/sparsifiner_attention.json
    python benchmarks/sparsifiner_attention.py --tokens 577 --rounds 3 --output -

The heads of DeiT-S, one image, float32. Queries, keys and values are given to both sides as a model
has them, views of one product; projections are left out on both. One call of each way in turn. The
weights of the predictor are random and its basis is scaled to a share of entries that are not 0.
Beside them, once: the full product that is masked, as the paper's own code has it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from shared.memory import peak_memory
from shared.record import account, interleave, summary, write
from torch import Tensor

from sparsevit.methods.attention import routes
from sparsevit.methods.attention.forward import (
    class_attention,
    coefficients,
    kept_keys,
    masked_attention,
    patch_attention,
)
from sparsevit.methods.attention.predictor import MaskPredictor

HEADS, CHANNELS = 6, 64
DENSE, MASKED = "dense, fused", "topk 0.1, full product masked"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=[197, 577, 1025, 2305, 4097])
    parser.add_argument("--keep-rates", type=float, nargs="+", default=[0.25, 0.1])
    parser.add_argument("--basis-density", type=float, default=0.05)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", help="JSON file, or - for none")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    with torch.no_grad():
        rows = {
            str(tokens): measured(
                tokens, arguments.keep_rates, arguments.basis_density, arguments.rounds
            )
            for tokens in arguments.tokens
        }
    result = {
        **account(),
        "heads": HEADS,
        "head_channels": CHANNELS,
        "basis_density": arguments.basis_density,
        "results": rows,
    }
    write("sparsifiner_attention", result, arguments.output)


def measured(
    tokens: int, keep_rates: list[float], density: float, rounds: int
) -> dict[str, dict[str, Any]]:
    """Every way's times, how many times as fast as dense it is, and the memory that it takes."""
    q, k, v = torch.randn(1, tokens, 3, HEADS, CHANNELS).permute(2, 0, 3, 1, 4)
    calls: dict[str, Callable[[], Tensor]] = {
        DENSE: lambda: F.scaled_dot_product_attention(q, k, v)
    }
    for connections in ("topk", "blocks"):
        for rate in keep_rates:
            one = predictor(tokens, density, connections, rate)
            assert_right(one, q, k, v)
            calls[f"{connections} {rate:g}"] = lambda p=one: routes.sparse_attention(p, q, k, v)
    samples = interleave(calls, rounds)
    rows = {name: summary(taken, against=samples[DENSE]) for name, taken in samples.items()}
    one = predictor(tokens, density, "topk", 0.1)
    calls[MASKED] = lambda: masked(one, q, k, v)
    started = time.perf_counter()
    calls[MASKED]()
    rows[MASKED] = {"median_ms": round(1000 * (time.perf_counter() - started), 3), "speedup": None}
    for name, row in rows.items():
        memory = peak_memory(calls[name])
        row |= {"allocated_mib": memory.allocated_mib, "resident_mib": memory.resident_mib}
        faster = f"{row['speedup']:>7.2f}x" if row["speedup"] else " " * 8
        print(
            f"{tokens:>5} {name:<30}{row['median_ms']:>10.2f} ms{faster}"
            f"{row['allocated_mib']:>9.1f} MiB"
        )
    return rows


def predictor(tokens: int, density: float, connections: str, keep_rate: float) -> MaskPredictor:
    """One whose coefficients differ, with a basis of so many entries that are not 0."""
    made = MaskPredictor(tokens, CHANNELS, HEADS, connections=connections, keep_rate=keep_rate)
    made.proj_n.normal_(0, 0.3)
    for layer in (made.proj_c_q, made.proj_c_k):
        layer.weight.normal_(0, CHANNELS**-0.5)
    edge = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(1 - density / 2)).item()
    made.proj_back_n.normal_(0, made.basis_threshold / edge)
    return made.eval()


def masked(one: MaskPredictor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention by the full product, with -inf for what the predictor leaves out."""
    choice = one.choice(k.shape[2])
    weights = coefficients(*one.reduced(q, k), choice)
    mask = F.pad(kept_keys(weights, one.basis(), choice), (0, 0, 1, 0), value=True)
    return masked_attention(q, k, v, mask)


def assert_right(one: MaskPredictor, q: Tensor, k: Tensor, v: Tensor) -> None:
    """Refuse to time what does not compute the attention of PyTorch's plain route."""
    choice = one.choice(k.shape[2])
    plain = torch.cat(
        [
            class_attention(q, k) @ v,
            patch_attention(q, k, v, *one.reduced(q, k), one.basis(), choice),
        ],
        dim=2,
    )
    apart = (routes.sparse_attention(one, q, k, v) - plain).abs().amax(-1)
    # rounded, a weight may pass the next one: that is another key, of a query in very many
    assert (apart > 1e-5).float().mean() < 0.01, apart.max()


if __name__ == "__main__":
    main()
