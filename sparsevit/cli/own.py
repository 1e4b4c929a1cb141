"""``--data`` and ``--model`` of every command that takes a config."""

from __future__ import annotations

from pathlib import Path

from sparsevit.cli import console, run
from sparsevit.errors import UserError

_WEIGHTS = (".pth", ".pt", ".safetensors", ".ckpt", ".bin")


def config_of(
    phase: str, config: str | None, data: Path | None, model: str | None, workspace: Path | None
) -> str | None:
    """:func:`inputs_of` of a command that takes no checkpoint.

    Raises:
        UserError: as :func:`inputs_of`; or weights are given.
    """
    found, checkpoint = inputs_of(phase, config, None, data, model, workspace)
    if checkpoint is not None:
        raise UserError(
            f"{checkpoint} is a checkpoint, which `sparsevit {phase}` does not take.",
            "Leave it out.",
        )
    return found


def inputs_of(
    phase: str,
    config: str | None,
    checkpoint: Path | None,
    data: Path | None,
    model: str | None,
    workspace: Path | None,
    skip_broken: bool = False,
) -> tuple[str | None, Path | None]:
    """Config and checkpoint that a command works on.

    With ``--data`` the config is made, and what was chosen is shown; the first word is then the
    checkpoint. Without either, it is the one that ``--data`` made in this workspace before.

    Raises:
        UserError: both a config and data are given, or see
            :func:`sparsevit.phases.own.make_config`.
    """
    if data is None:
        if model is not None:
            raise UserError(
                "--model says which model to make for --data, and there is no --data.",
                "Add --data DIR, or give a config: CONFIG.",
            )
        if config is not None:
            return config, checkpoint
        from sparsevit.phases.own import remembered

        known = remembered(phase, workspace)
        return (None if known is None else str(known)), checkpoint
    if config is not None and checkpoint is None and config.endswith(_WEIGHTS):
        checkpoint, config = Path(config), None
    if config is not None:
        raise UserError(
            f"Both the config {config} and --data {data} are given.",
            f"Give one of them. For that config with this data: --data {data} --model {config}.",
        )
    from sparsevit.phases.own import make_config
    from sparsevit.report.own import choices_table

    made = make_config(data, model, workspace=workspace, skip_broken=skip_broken)
    if run.is_first():
        console.err.print(choices_table(made), soft_wrap=True)
    return str(made.config), checkpoint
