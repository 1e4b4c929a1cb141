"""A model or its backbone, by runtime and by part: a library's dense one and ours, in turn."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from shared.parts import at_ratios, parts_of, shares, split_in_turn
from shared.record import account, destination, interleave, merged, summary, taken, write
from shared.swin import CONFIGURATIONS
from sparsevit.errors import UserError
from sparsevit.latency.cost import gmacs

SHOWN = ("dense", "cfg1", "cfg2", "60%")
LONG = 1.5
"""Seconds of a call from which on fewer are made that are not timed."""

LARGEST = 1e-3
"""Difference from eager, against the largest value."""


class Subject(Protocol):
    """What is timed.

    Attributes:
        library: whose model the dense one is.
        dense, sparse: models with the same weights.
        backbone: that of ``sparse``.
        inputs: some, to run and compare on.
    """

    library: str
    dense: Any
    sparse: Any
    backbone: Any
    inputs: Sequence[Any]

    def prepared(self, backend: str, model: Any) -> Callable[[Any], Any]:
        """``dense`` or ``sparse`` in a runtime, at the sparsity that it has now."""

    def difference(self, found: Any, expected: Any) -> float:
        """The largest between two results, against the largest value."""


@dataclass(frozen=True)
class Timed:
    """A subject to time in every runtime.

    Attributes:
        name: of its rows.
        subject: what is timed.
        parts: of a whole call, timed from within in eager; see :func:`shared.parts.parts_of`.
        batch: what ``test_step`` takes then.
    """

    name: str
    subject: Subject
    parts: tuple[tuple[str, str, str], ...] = ()
    batch: Mapping[str, Any] | None = None


def options(
    doc: str, models: Sequence[str], backends: Sequence[str], img_size: str
) -> argparse.ArgumentParser:
    """The options that all such scripts have.

    Args:
        doc: of the script.
        models: names to choose from.
        backends: likewise.
        img_size: where none is given.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(models), choices=models)
    parser.add_argument("--backends", nargs="*", default=list(backends), choices=backends)
    parser.add_argument("--img-size", default=img_size, metavar="WxH")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--merge", action="store_true", help="keep other rows of the file")
    parser.add_argument("--output", help="JSON file, or - for none")
    return parser


def measure(
    name: str, given: argparse.Namespace, subjects: Iterable[Timed], settings: Mapping[str, Any]
) -> None:
    """Time every subject in every runtime; the result is written after each row.

    Args:
        name: of the result.
        given: values of :func:`options`.
        subjects: made one after the other.
        settings: of all rows; a file of others is not merged with.

    Raises:
        SystemExit: something differs from eager, or failed.
    """
    torch.manual_seed(0)
    result: dict[str, Any] = {**account(), **settings, "left_out": {}, "results": {}}
    file = destination(name, given.output)
    before = json.loads(file.read_text()) if given.merge and file.exists() else None
    wrong: list[str] = []

    def keep() -> None:
        whole = merged(before, result, tuple(settings)) if before else result
        write(name, whole, given.output)

    for one in subjects:
        for backend in given.backends:
            row = f"{one.name} {backend}"
            try:
                result["results"][row] = in_runtime(row, backend, one.subject, given.rounds, wrong)
            except UserError as error:
                result["left_out"][row] = str(error)
                print(f"{row}: left out. {error}", flush=True)
            keep()
        if one.batch is not None:
            result["results"][f"{one.name} parts"] = in_parts(
                one.name, one.subject, one.parts, one.batch, given.rounds
            )
            keep()
    if wrong:
        raise SystemExit("Not timed:\n" + "\n".join(wrong))


def in_runtime(
    row: str, backend: str, subject: Subject, rounds: int, wrong: list[str]
) -> dict[str, Any]:
    """Times in one runtime, dense and at each configuration.

    The library's dense model in eager PyTorch is always among what takes turns. What differs from
    eager is not timed, and told of in ``wrong``.

    Raises:
        UserError: the runtime cannot be had here.
    """
    given = subject.inputs[0]
    eager, dense = f"{subject.library} eager", f"{subject.library} dense"
    reference = subject.prepared("eager", subject.dense)
    calls: dict[str, Callable[[], Any]] = {eager: lambda: reference(given)}
    macs = {eager: gmacs(calls[eager])}
    agreement, missing = {}, {}
    for route in (dense, *(f"ours {name}" for name in SHOWN)):
        model = subject.dense if route == dense else subject.sparse
        if route != dense:
            subject.backbone.pruning_ratios = CONFIGURATIONS[route.removeprefix("ours ")]
        # ours at ratio 0 is held against the library's own
        peer = reference if "dense" in route else subject.prepared("eager", model)
        macs[route] = gmacs(lambda peer=peer: peer(given))
        try:
            run = subject.prepared(backend, model)
            found = _closest(subject, run, peer)
        except UserError:
            raise
        except Exception as error:  # a compiler or converter raises whatever it likes
            missing[route] = f"{type(error).__name__}: {error}"[:500]
        else:
            agreement[route] = {"difference": found}
            if found <= LARGEST:
                calls[route] = lambda run=run: run(given)
            else:
                missing[route] = f"differs from eager by {found:.2g}"
        if route in missing:
            wrong.append(f"{row}, {route}: {missing[route]}")
            print(wrong[-1], flush=True)
    started = time.perf_counter()
    reference(given)
    # calls that take seconds start from the same caches, whatever ran before
    few = {"warmup": 1, "untimed": 0} if time.perf_counter() - started > LONG else {}
    samples = interleave(calls, rounds, **few)
    print(f"\n{row}", flush=True)
    rows = {}
    for name, times in samples.items():
        figures = summary(times, against=samples.get(dense))
        figures["speedup_over_eager"] = summary(times, samples[eager])["speedup"]
        figures["gmacs"] = round(macs[name], 2)
        print(
            f"  {name:<14}{figures['median_ms']:>9.1f} ms  {figures.get('speedup', 0):.2f}x  "
            f"{figures['speedup_over_eager']:.2f}x eager  {macs[name]:.0f} GMACs",
            flush=True,
        )
        rows[name] = figures
    return {"taken": taken(), "agreement": agreement, "missing": missing, "rows": rows}


def _closest(subject: Subject, run: Any, peer: Any) -> float:
    """On the first inputs on which they agree: rounding may decide which of two windows is kept."""
    for given in subject.inputs:
        found = subject.difference(run(given), peer(given))
        if found <= LARGEST:
            break
    return found


def in_parts(
    name: str,
    subject: Subject,
    named: Sequence[tuple[str, str, str]],
    batch: Mapping[str, Any],
    rounds: int,
) -> dict[str, Any]:
    """Where the time of a whole ``test_step`` goes, in eager.

    Args:
        name: of the model.
        subject: of whole models.
        named: see :func:`shared.parts.parts_of`.
        batch: what ``test_step`` takes.
        rounds: calls of each.
    """
    dense = f"{subject.library} dense"
    watched = {dense: parts_of(subject.dense, named)}
    calls: dict[str, Callable[[], Any]] = {dense: lambda: subject.dense.test_step(batch)}
    for shown in SHOWN:
        calls[f"ours {shown}"] = at_ratios(
            subject.backbone, CONFIGURATIONS[shown], lambda: subject.sparse.test_step(batch)
        )
        watched[f"ours {shown}"] = parts_of(subject.sparse, named)
    samples = split_in_turn(calls, watched, rounds)
    rows = {}
    for route, found in samples.items():
        rows[route] = {**summary(found[""], against=samples[dense][""]), "parts": shares(found)}
        print(f"\n{name}, {route}: {rows[route]['median_ms']:.1f} ms")
        for part, figure in rows[route]["parts"].items():
            print(f"  {part:<28}{figure['median_ms']:>9.2f} ms  {figure['share']:>6.1%}")
    return {"taken": taken(), "rows": rows}
