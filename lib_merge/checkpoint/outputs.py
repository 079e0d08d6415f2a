"""Looks at the place of an output before work on it starts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from lib_merge.errors import DiskFullError, OutputError

_DISK_MARGIN = 1 << 24


def check_output(target: Path, inputs: Sequence[Path], *, overwrite: bool) -> None:
    """Refuse an output that cannot or must not be written.

    Args:
        target: Absolute.
        inputs: Files that are read while it is written.
        overwrite: Whether an existing file may be replaced.

    Raises:
        OutputError: What is wrong with it.
    """
    if target.suffix != ".safetensors":
        raise OutputError(
            f"The output {target} must end in .safetensors; WebUIs list no other name."
        )
    if target.is_dir():
        raise OutputError(f"The output {target} is a folder; give a file name.")
    if not target.parent.is_dir():
        raise OutputError(
            f"The folder {target.parent} of the output does not exist; create it or "
            "choose another."
        )
    for path in inputs:
        if target.exists() and path.exists() and target.samefile(path):
            raise OutputError(
                f"The output {target} is the input {path} itself; choose another name."
            )
    if target.exists() and not overwrite:
        raise OutputError(
            f"The output {target} exists; choose another name, or allow it to be "
            "replaced (--overwrite)."
        )
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise OutputError(
            f"The folder {target.parent} may not be written to; choose another or "
            "change its permissions."
        )


def check_disk(target: Path, n_bytes: int) -> None:
    """Refuse an output that its disk has no room for.

    Raises:
        DiskFullError: With both figures.
    """
    free = shutil.disk_usage(target.parent).free
    if free < n_bytes + _DISK_MARGIN:
        raise DiskFullError(
            f"{target.name} needs {n_bytes / 1e9:.3f} GB, the disk of {target.parent} "
            f"has {free / 1e9:.3f} GB free; free some or choose another folder."
        )
