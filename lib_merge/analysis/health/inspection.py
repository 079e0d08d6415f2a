"""What a checkpoint is and holds, and what is wrong with it, as one value."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib_merge.analysis.health.defects import Finding


@dataclass(frozen=True)
class Part:
    """One component of a file.

    Attributes:
        component: unet, clip_l, vae ...
        n_keys: Tensors.
        n_params: Numbers in them.
        n_bytes: Their size in the file.
        dtypes: Tensors by element type.
        n_missing: Keys that a whole component has and this one lacks.
        digest: Names its values, equal for equal values in float16; None while nobody
            has read them.
        same_as: Files whose component has the same values.
    """

    component: str
    n_keys: int
    n_params: int
    n_bytes: int
    dtypes: Mapping[str, int]
    n_missing: int = 0
    digest: str | None = None
    same_as: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "n_keys": self.n_keys,
            "n_params": self.n_params,
            "n_bytes": self.n_bytes,
            "dtypes": dict(self.dtypes),
            "n_missing": self.n_missing,
            "hash": self.digest,
            "same_as": list(self.same_as),
        }


@dataclass(frozen=True)
class Contents:
    """What keys, shapes and types alone tell; equal for files of one layout.

    Attributes:
        arch_id: The architecture's id, or None.
        label: Its name, or what else the file is.
        kin: What sets it apart from its architecture's usual models, in a few words.
        n_params: All numbers.
        n_ema_params: Those of EMA shadow weights.
        dtypes: Tensors by element type.
        parts: By component, in the architecture's order; EMA and extras not counted.
        blocks: Numbers by block.
        findings: What is wrong or worth knowing.
        problems: Sentences about what is not a matter of single keys.
    """

    arch_id: str | None
    label: str
    kin: tuple[str, ...]
    n_params: int
    n_ema_params: int
    dtypes: Mapping[str, int]
    parts: tuple[Part, ...]
    blocks: Mapping[str, int]
    findings: tuple[Finding, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """All that was found out about one file.

    Attributes:
        path: The file.
        n_bytes: Its size.
        n_keys: Its tensors.
        contents: What its layout tells, and what reading its values added.
        metadata: Its strings.
        recipe: The MergeLab recipe in it, as plain JSON, or None.
        histories: What other tools say in it of how it was made, in words.
        problems: Sentences of this file alone (a recipe that cannot be read).
        is_deep: Whether every value was read.
        sha256: Of the file, where it is known.
        error: Why the file could not be read at all; everything else is empty then.
    """

    path: Path
    n_bytes: int
    n_keys: int
    contents: Contents
    metadata: Mapping[str, str] = field(default_factory=dict)
    recipe: Any = None
    histories: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    is_deep: bool = False
    sha256: str | None = None
    error: str | None = None

    def part(self, component: str) -> Part | None:
        """One component, or None where the file has none of it."""
        found = [p for p in self.contents.parts if p.component == component]
        return found[0] if found else None

    @property
    def precision(self) -> str:
        """The element type of most numbers of the largest component."""
        parts = [p for p in self.contents.parts if p.n_params] or None
        if parts is None:
            counts = self.contents.dtypes
        else:
            counts = max(parts, key=lambda part: part.n_params).dtypes
        return max(counts, key=lambda name: counts[name]) if counts else "-"

    def all_problems(self) -> tuple[str, ...]:
        """Every sentence that a user should act on."""
        found = [f.text for f in self.contents.findings if f.defect.is_problem]
        return (*self.contents.problems, *found, *self.problems)

    def notes(self) -> tuple[str, ...]:
        """What is worth knowing and does no harm."""
        findings = self.contents.findings
        return tuple(f.text for f in findings if not f.defect.is_problem)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        contents = self.contents
        report: dict[str, Any] = {
            "file": str(self.path),
            "n_bytes": self.n_bytes,
            "sha256": self.sha256,
            "architecture": contents.arch_id,
            "label": contents.label,
            "kin": list(contents.kin),
            "n_keys": self.n_keys,
            "n_params": contents.n_params,
            "dtypes": dict(contents.dtypes),
            "components": {p.component: p.n_params for p in contents.parts},
            "parts": {p.component: p.to_json() for p in contents.parts},
            "blocks": dict(contents.blocks),
            "n_ema_params": contents.n_ema_params,
            "is_deep": self.is_deep,
            "findings": [_finding_json(f) for f in contents.findings],
            "recipe": self.recipe,
            "histories": list(self.histories),
            "metadata": dict(self.metadata),
            "problems": list(self.all_problems()),
            "error": self.error,
        }
        return report


def _finding_json(finding: Finding) -> dict[str, Any]:
    return {
        "defect": finding.defect.value,
        "is_problem": finding.defect.is_problem,
        "text": finding.text,
        "keys": list(finding.keys),
        "details": list(finding.details),
    }


NOTHING = Contents(None, "-", (), 0, 0, {}, (), {}, (), ())
"""The contents of a file that cannot be read."""

_TOOLS = {
    "sd_merge_recipe": "a merge by a WebUI or one of its extensions",
    "sd_merge_models": "the models of that merge, with their own recipes",
    "sd_mbwrt_recipe": "a merge by AutoMBW (27 weights)",
    "mecha_recipe": "a merge by sd-mecha",
    "merge_recipe": "a merge by another tool",
    "_quantization_metadata": "quantised layers, listed",
    "mergelab_changes": "repairs and conversions by MergeLab",
}


def histories_of(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """What the metadata tells of how a file was made, in words."""
    found = []
    for name, words in _TOOLS.items():
        if name in metadata:
            found.append(f"{name}: {words}{_detail(name, metadata[name])}")
    trained = [name for name in metadata if name.startswith("ss_")]
    if trained:
        found.append(f"{len(trained)} ss_* entries: training by kohya's scripts")
    described = [name for name in metadata if name.startswith("modelspec.")]
    if described:
        title = metadata.get("modelspec.title", "")
        found.append(f"modelspec: {title or f'{len(described)} entries'}")
    return tuple(found)


def _detail(name: str, text: str) -> str:
    """The few words of a recipe that tell most."""
    if name not in ("sd_merge_recipe", "sd_merge_models"):
        return ""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return " (no JSON)"
    if not isinstance(data, dict):
        return ""
    if name == "sd_merge_models":
        return f" ({len(data)} listed)"
    words: Sequence[str] = [
        str(data[key])
        for key in ("type", "interp_method", "custom_name")
        if isinstance(data.get(key), str) and data[key]
    ]
    return f" ({', '.join(words)})" if words else ""
