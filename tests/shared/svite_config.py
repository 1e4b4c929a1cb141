"""A small DeiT that is trained sparse, for the commands."""

from __future__ import annotations

import tiny


def config(**svite: object) -> str:
    """The text of a config whose backbone has these options."""
    return (
        tiny.DEIT.replace('type="VisionTransformer"', f'type="SViTE", svite=dict({_words(svite)})')
        + 'custom_imports = dict(imports=["sparsevit.models.svite"], allow_failed_imports=False)\n'
        # as the paper's, at a pace that a test can wait for
        + 'custom_hooks = [dict(type="EMAHook", ema_type="SparseEMA", momentum=0.1)]\n'
    )


def _words(options: dict[str, object]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in options.items())
