"""Reads and writes the compact golden lists of the diffusion transformers.

A row is: key, numbers, block, component, treatment, dtype, shape. Every number between
dots of a key is a `#`, and the second column says which numbers occur there; the `#` of
a block is the first of them, in two digits.

    python -m tests.support.golden_lists

writes them anew from the whole layouts beside the repository and from the classes of
diffusers and transformers.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from lib_merge.arch import architectures, detect_layout
from lib_merge.core.blocks import KeyInfos, TensorInfo
from lib_merge.core.dtypes import DType
from tests.support.compact_layouts import Numbers, _text, split_numbers

GOLDEN = Path(__file__).parent.parent / "golden"
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "layouts"
COMPACT = (
    "sd3_medium",
    "sd35_medium",
    "sd35_large",
    "flux",
    "auraflow",
    "hunyuan_dit",
    "pixart",
    "sdxl_refiner",
)
FIELDS = ("key", "numbers", "block", "component", "treatment", "dtype", "shape")


def expanded(rows: list[dict[str, str]]) -> Iterator[dict[str, str]]:
    """A row for every key of a compact list."""
    for row in rows:
        pieces = row["key"].split("#")
        for numbers in _products(row["numbers"]):
            texts = [str(number) for number in numbers]
            key = "".join(
                piece + text
                for piece, text in itertools.zip_longest(pieces, texts, fillvalue="")
            )
            block = row["block"]
            if "#" in block:
                block = block.replace("#", f"{numbers[0]:02d}")
            yield {**row, "key": key, "block": block}


def _products(text: str) -> Iterator[Numbers]:
    for product in text.split(" "):
        sides = [list(_range(side)) for side in product.split(":") if side]
        yield from itertools.product(*sides)


def _range(text: str) -> Iterator[int]:
    for span in text.split(","):
        first, _, last = span.partition("-")
        yield from range(int(first), int(last or first) + 1)


def compact_rows(arch_id: str, infos: KeyInfos) -> list[dict[str, str]]:
    """The compact list of an architecture's tensors."""
    groups: dict[tuple[str, ...], set[Numbers]] = {}
    for key, info in infos.items():
        role = architectures().get(arch_id).role_of(key)
        assert role is not None, key
        template, numbers = split_numbers(key)
        block: str = role.block
        if numbers and block.endswith(f"{numbers[0]:02d}"):
            block = f"{block[:-2]}#"
        shape = ",".join(str(side) for side in info.shape)
        named = (block, role.component.value, role.treatment.value)
        groups.setdefault((template, *named, info.dtype.code, shape), set()).add(
            numbers
        )
    rows = []
    for (key, block, component, treatment, dtype, shape), found in groups.items():
        values = (key, _text(found), block, component, treatment, dtype, shape)
        rows.append(dict(zip(FIELDS, values, strict=True)))
    return sorted(rows, key=lambda row: (row["key"], row["block"], row["shape"]))


def _layout(name: str) -> Mapping[str, Mapping[str, TensorInfo]]:
    data = json.loads((SHARED / f"{name}.json").read_text(encoding="utf-8"))
    return {
        part: {k: TensorInfo(DType[v[1]], tuple(v[0])) for k, v in keys.items()}
        for part, keys in data.items()
    }


def whole_infos(arch_id: str) -> KeyInfos:
    """Every tensor of an architecture's single file."""
    sd3, flux = _layout("sd3_medium"), _layout("flux_dev")
    if arch_id in ("sd3_medium", "flux"):
        parts = sd3 if arch_id == "sd3_medium" else flux
        return {k: v for part in parts.values() for k, v in part.items()}
    from tests.support.published_models import encoder_infos, transformer_infos

    stored = {
        f"transformer.{name}": info for name, info in transformer_infos(arch_id).items()
    }
    for folder, infos in encoder_infos(arch_id):
        stored.update({f"{folder}.{name}": info for name, info in infos.items()})
    found = dict(detect_layout(stored, where=arch_id).canonical)
    if arch_id.startswith("sd35"):
        for part in ("clip_l", "clip_g", "t5xxl", "vae"):
            found.update(sd3[part])
        return found
    sdxl = _layout("sdxl")
    if arch_id == "sdxl_refiner":
        for key, info in sdxl["clip_g"].items():
            found[key.replace("embedders.1.", "embedders.0.")] = info
        return found | sdxl["vae"]
    if arch_id == "pixart":
        found.update(flux["t5xxl"])
    for key, info in sdxl["vae"].items():
        found[key.replace("first_stage_model.", "vae.")] = info
    return found


def write() -> None:
    """Write every compact list."""
    for arch_id in COMPACT:
        rows = compact_rows(arch_id, whole_infos(arch_id))
        path = GOLDEN / f"{arch_id}.tsv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, FIELDS, delimiter="\t", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    write()
