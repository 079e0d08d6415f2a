"""What a WebUI writes into its pictures about the merge that is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LEAD = "MergeLab "
"""What our fields of a picture's generation data begin with."""


def tell(job: Any, fields: Mapping[str, str]) -> None:
    """Put our fields into a job's generation data, and take out older ones.

    A grid's jobs share one dictionary, so a cell would keep what the last one said.

    Args:
        job: The host's job; `extra_generation_params` is written into its pictures.
        fields: By name; none when the loaded model is no merge of ours.
    """
    params = getattr(job, "extra_generation_params", None)
    if not isinstance(params, dict):
        return
    for name in [name for name in params if str(name).startswith(LEAD)]:
        del params[name]
    params.update(fields)
