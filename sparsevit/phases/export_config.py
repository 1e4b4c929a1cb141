"""A config for plain mmdet tools with the sparsity in it, or the configuration alone."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

import sparsevit
from sparsevit.engine.config import (
    apply_overrides,
    check_config,
    dump_config,
    load_config,
    sparsify_config,
)
from sparsevit.engine.schedule import phase_config, with_paper_phases
from sparsevit.errors import UserError
from sparsevit.phases.budgets import named_best
from sparsevit.phases.inputs import DEMO_CONFIG, Inputs, PathLike
from sparsevit.phases.sparsity import choose_sparsity
from sparsevit.report.reporter import SILENT, Reporter
from sparsevit.sparsity.files import configuration_text, write_text
from sparsevit.tasks import task_of
from sparsevit.workspace import Resolved, Workspace

FORMATS = ("py", "yaml", "json")

_SUFFIXES = {".py": "py", ".yaml": "yaml", ".yml": "yaml", ".json": "json"}
_BEFORE = ("finetune", "search", "adapt", "pretrain")
_TRAINED = ("finetune", "adapt", "pretrain")


@dataclass(frozen=True)
class ExportConfigResult:
    """What was exported.

    Attributes:
        format: ``py``: a whole config; ``yaml`` or ``json``: the configuration alone.
        text: the whole file.
        out: where it was written, None if nowhere.
        sparsity: a ratio for every knob.
        sparsity_source: where these came from.
        config_source: where the config came from.
        checkpoint: the weights that the config names, None where the workspace has none for it.
    """

    format: str
    text: str
    out: Path | None
    sparsity: dict[str, float]
    sparsity_source: str
    config_source: str
    checkpoint: Path | None = None


def export_config(
    config: PathLike | None = None,
    *,
    sparsity: PathLike | None = None,
    budget: str | None = None,
    out: PathLike | None = None,
    format: str | None = None,
    force: bool = False,
    workspace: PathLike | None = None,
    overrides: Sequence[str] = (),
    reporter: Reporter = SILENT,
) -> ExportConfigResult:
    """Export a config with its sparsity, or the sparsity alone. The workspace is only read.

    The exported config stands alone (no ``_base_``) and needs nothing but mmdet or mmseg and an
    importable sparsevit: its ``custom_imports`` does the rest. Where it has ratios above 0 it
    trains as ``finetune`` would. It has what their inferencers ask for (a visualizer, a test set
    with its classes and their colours), and its ``load_from`` is the workspace's newest checkpoint,
    where the config is the workspace's too.

    Args:
        config: path or name; the workspace's last where None, else the embedded demo's.
        sparsity: file with a configuration; where None, that of a config which has one, else the
            best that ``search`` found.
        budget: take the best that search found for this interval, ``37:42``, instead.
        out: file to write; None to write none.
        format: one of ``FORMATS``; None for what ``out`` ends in, else ``py``.
        force: replace ``out`` if it is there.
        workspace: directory of the record; ``work_dirs`` where None.
        overrides: config values, ``key=value`` each.
        reporter: is told what was taken.

    Raises:
        UserError: an input is missing or wrong, or ``out`` is there already or cannot be written.
    """
    target = Path(out) if out is not None else None
    form = _format(format, target)
    if target is not None and target.exists() and not force:
        raise UserError(
            f"{target} already exists.", "Choose another --out, or replace it with --force."
        )
    ws = Workspace.open(workspace, readonly=True)
    sparsity = named_best(ws, sparsity, budget, reporter)
    found = ws.resolve_config(config, _BEFORE) or Resolved(Path(DEMO_CONFIG), "the embedded demo")
    loaded = load_config(os.fspath(found.path), overrides)
    # a config that was given is exported as it is but for its sparsity
    base = sparsify_config(loaded if config is not None else with_paper_phases(loaded))
    if base.get("model"):
        base.setdefault("default_scope", task_of(base).scope)
    check_config(base)
    source = str(config) if config is not None else f"{found.path.name} of {found.source_text}"
    reporter.note(f"config: {source}")
    chosen = choose_sparsity(
        Inputs(base, base, source, None, "none"),
        sparsity,
        ws.best_configuration(),
        reporter=reporter,
    )
    weights = _weights(ws, reporter) if config is None else None
    if form == "py":
        cfg = _with_schedule(base, sparse=any(chosen.configuration.values()))
        _complete(cfg, weights)
        apply_overrides(cfg, overrides)
        if any(chosen.configuration.values()):
            cfg = chosen.in_config(cfg)
        text = _heading(
            source, chosen.source, cfg.get("load_from"), task_of(cfg).scope
        ) + dump_config(cfg)
    else:
        text = configuration_text(chosen.configuration, chosen.beside, f".{form}")
    if target is not None:
        write_text(target, text)
    return ExportConfigResult(
        format=form,
        text=text,
        out=target,
        sparsity=chosen.configuration.to_dict(),
        sparsity_source=chosen.source,
        config_source=source,
        checkpoint=weights if form == "py" else None,
    )


def _format(asked: str | None, target: Path | None) -> str:
    if asked is not None and asked not in FORMATS:
        raise UserError(f"There is no format {asked!r}.", f"Use one of {', '.join(FORMATS)}.")
    if target is None:
        return asked or "py"
    named = _SUFFIXES.get(target.suffix)
    if named is None:
        raise UserError(
            f"{target} does not have the suffix of a config or a configuration.",
            "Name it .py for a whole config, .yaml or .json for the configuration alone.",
        )
    if asked not in (None, named):
        raise UserError(
            f"{target} is not a valid name for the format {asked}.", f"Name it .{asked}."
        )
    return named


def _with_schedule(base: Config, sparse: bool) -> Config:
    """The config with the schedule of the phase that would train it, and no other's."""
    cfg = phase_config(base, "finetune" if sparse else "pretrain")
    for key in ("phases", "embedded_dataset"):
        cfg.pop(key, None)
    return cfg


def _weights(ws: Workspace, reporter: Reporter) -> Path | None:
    """The workspace's newest weights; a config can be exported without any."""
    try:
        found = ws.resolve_checkpoint(None, _TRAINED)
    except UserError as error:
        reporter.note(f"no checkpoint: {error.problem}")
        return None
    if found is None:
        return None
    reporter.note(f"checkpoint: {found.path} ({found.source_text})")
    return found.path


def _complete(cfg: Config, weights: Path | None) -> None:
    """Add what a library's tools and its inferencer ask for and sparsevit's phases do without."""
    if weights is not None:
        cfg.load_from = str(weights)
    if not cfg.get("visualizer"):
        cfg.visualizer = {
            "type": task_of(cfg).visualizer,
            "vis_backends": [{"type": "LocalVisBackend"}],
            "name": "visualizer",
        }
    if not cfg.get("test_dataloader") and cfg.get("val_dataloader"):
        for part, default in (("dataloader", None), ("evaluator", None), ("cfg", {})):
            cfg[f"test_{part}"] = copy.deepcopy(cfg.get(f"val_{part}") or default)
        if cfg.test_cfg.get("type") == "ValLoop":
            cfg.test_cfg["type"] = "TestLoop"
    metainfo = _metainfo(cfg)
    dataset = (cfg.get("test_dataloader") or {}).get("dataset")
    if metainfo and dataset is not None and "dataset" not in dataset:
        dataset["metainfo"] = {**metainfo, **(dataset.get("metainfo") or {})}


def _metainfo(cfg: Config) -> dict[str, Any]:
    """Classes and their colours as the config's datasets have them; nothing where none says."""
    for split in ("test", "val", "train"):
        dataset = (cfg.get(f"{split}_dataloader") or {}).get("dataset")
        said = dict((dataset or {}).get("metainfo") or {})
        if said.get("classes"):
            if not said.get("palette"):
                said["palette"] = task_of(cfg).palette(len(said["classes"]))
            return said
    return {}


def _heading(config: str, sparsity: str, weights: Any, library: str) -> str:
    # a file's name may hold a line break, and what follows it would be code
    config, sparsity, named = (" ".join(str(text).split()) for text in (config, sparsity, weights))
    return (
        f"# Exported by sparsevit {sparsevit.__version__} from {config}.\n"
        f"# Sparsity: {sparsity}.\n"
        f"# Checkpoint: {named if weights else 'none'}.\n"
        f"# For {library}'s tools; they need sparsevit to be installed.\n\n"
    )
