"""The configuration file that some checkpoints need beside them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def copy_config(model: Path, output: Path) -> str | None:
    """Give a merge the configuration of its first model.

    WebUIs read `NAME.yaml` beside `NAME.safetensors` where the keys alone do not tell
    how to build the model (SD2 with v-prediction, unusual widths); without it the merge
    would not load, or render noise. An existing file is the user's own and stays.

    Args:
        model: The recipe's first model.
        output: The merge's file.

    Returns:
        A warning when there is one to copy and it could not be, else None.
    """
    source, target = model.with_suffix(".yaml"), output.with_suffix(".yaml")
    if not source.is_file() or target.exists():
        return None
    partial = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        shutil.copyfile(source, partial)
        partial.replace(target)
    except OSError as fault:
        partial.unlink(missing_ok=True)
        return (
            f"{source.name} could not be copied beside the merge ({fault.strerror}); "
            f"copy it to {target} yourself, or a WebUI may not load the merge."
        )
    return None
