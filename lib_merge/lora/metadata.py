"""What a written LoRA says of itself, in the words that WebUIs read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lib_merge
from lib_merge.lora.factors import Keep
from lib_merge.lora.file import LoraFile

MADE_OF = "mergelab_lora"
_BASE_MODELS = {
    "sd1": "sd_v1",
    "sd2": "sd_v2",
    "sdxl": "sdxl_base_v1-0",
    "flux": "flux1",
}
_TAGS = "ss_tag_frequency"
_CARRIED = ("ss_output_name", "modelspec.trigger_phrase", "ss_base_model_version")
_MAX_TAGS_TEXT = 20_000_000


@dataclass(frozen=True)
class JoinedFrom:
    """LoRAs with their main weights, and what was kept of them."""

    loras: Sequence[tuple[LoraFile, float]]
    keep: Keep | None


def joined_metadata(
    made: JoinedFrom, arch_id: str, ranks: Sequence[int]
) -> dict[str, str]:
    """The header's strings of a joined LoRA.

    Args:
        made: What it was made of.
        arch_id: The architecture that it is for.
        ranks: Of its modules.
    """
    keep = made.keep
    how: dict[str, Any] = {"how": "concatenated"}
    if keep is not None:
        how = {"how": "decomposed", "rank": keep.rank, "energy": keep.energy}
    inputs = [{"name": f.path.name, "weight": weight} for f, weight in made.loras]
    found = lora_metadata(arch_id, ranks, {**how, "inputs": inputs})
    tags = _joined_tags([lora.header.metadata for lora, _ in made.loras])
    if tags:
        found[_TAGS] = json.dumps(tags, ensure_ascii=False)
    if len(made.loras) == 1:
        first = made.loras[0][0].header.metadata
        found |= {name: first[name] for name in _CARRIED if name in first}
    return found


def lora_metadata(
    arch_id: str, ranks: Sequence[int], made_of: Mapping[str, Any]
) -> dict[str, str]:
    """The header's strings of a LoRA that we write.

    Args:
        arch_id: The architecture that it is for.
        ranks: Of its modules.
        made_of: How it came about; JSON.
    """
    rank = str(ranks[0]) if len(set(ranks)) == 1 else "Dynamic"
    found = {
        "format": "pt",
        "ss_network_module": "networks.lora",
        "ss_network_dim": rank,
        "ss_network_alpha": rank,
        "mergelab_version": lib_merge.__version__,
        MADE_OF: json.dumps(made_of, ensure_ascii=False),
    }
    if arch_id in _BASE_MODELS:
        found["ss_base_model_version"] = _BASE_MODELS[arch_id]
    if arch_id == "sd2":
        found["ss_v2"] = "True"
    return found


def tag_counts(metadata: Mapping[str, str]) -> dict[str, int]:
    """How often each tag stood in the captions that a LoRA was trained on."""
    counts: dict[str, int] = {}
    for tags in _folders(metadata).values():
        for tag, count in tags.items():
            counts[tag] = counts.get(tag, 0) + count
    return counts


def _folders(metadata: Mapping[str, str]) -> dict[str, dict[str, int]]:
    text = metadata.get(_TAGS, "")
    if not text or len(text) > _MAX_TAGS_TEXT:
        return {}
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(data, dict):
        return {}
    return {
        str(folder): {
            str(tag).strip(): count
            for tag, count in tags.items()
            if isinstance(count, int) and not isinstance(count, bool)
        }
        for folder, tags in data.items()
        if isinstance(tags, dict)
    }


def _joined_tags(
    all_metadata: Sequence[Mapping[str, str]],
) -> dict[str, dict[str, int]]:
    joined: dict[str, dict[str, int]] = {}
    for metadata in all_metadata:
        for folder, tags in _folders(metadata).items():
            counts = joined.setdefault(folder, {})
            for tag, count in tags.items():
                counts[tag] = counts.get(tag, 0) + count
    return joined
