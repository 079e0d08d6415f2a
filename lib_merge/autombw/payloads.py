"""Payloads: what a study renders, read from AutoMBW's payload files as they are."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

from lib_merge.autombw.payload import Payload, lifted
from lib_merge.autombw.payload_formats import RawPayload, parse_file, payload_files
from lib_merge.autombw.payload_report import PayloadReport, report_on
from lib_merge.autombw.wildcards import (
    COMBINATORIAL,
    LUCKY,
    NONE,
    Wildcards,
    draw,
    has_wildcards,
)
from lib_merge.core.seeds import derive_seed
from lib_merge.errors import PayloadError

__all__ = [
    "Payload",
    "PayloadReport",
    "draw_payloads",
    "payload_from_txt2img",
    "read_payloads",
    "read_reported",
    "split_payloads",
]

_log = logging.getLogger(__name__)

_DEFAULTS = {
    f.name: f.default
    for f in fields(Payload)
    if f.name != "name" and f.default is not MISSING
} | {"prompt": ""}


def read_raw(raw: RawPayload) -> tuple[Payload, PayloadReport]:
    """A payload and what became of its fields.

    Raises:
        PayloadError: A field is wrong.
    """
    data = raw.fields
    payload = Payload.from_json(data, where=raw.source, name=raw.name)
    payload = replace(payload, name=raw.name)
    report = report_on(
        lifted(data, raw.source),
        _DEFAULTS,
        name=payload.name,
        source=raw.source,
        notes=_notes(payload),
        has_all_fields=raw.has_all_fields,
    )
    return payload, report


def _notes(payload: Payload) -> list[str]:
    notes = []
    kind, texts = payload.wildcard_type, payload.prompt + payload.negative_prompt
    if kind == NONE and has_wildcards(texts):
        notes.append(
            "the prompt looks as if it had wildcards, but wildcard_type is none; it "
            "stays as it is."
        )
    if kind == LUCKY:
        notes.append(
            "wildcard_type lucky would fetch prompts from a web page; it draws "
            "wildcards at random here."
        )
    if payload.styles:
        notes.append("scorers do not read the words that styles add to the prompt.")
    return notes


def payload_from_txt2img(
    values: Mapping[str, Any], name: str = "txt2img"
) -> tuple[Payload, PayloadReport]:
    """The payload of current txt2img settings, under the names of the WebUI's API.

    Args:
        values: Settings by name (prompt, steps, enable_hr, override_settings ...).
        name: What to call it.

    Raises:
        PayloadError: A setting is wrong.
    """
    # A WebUI's API sends null for what is not set.
    data = {key: value for key, value in values.items() if value is not None}
    if not data.get("sampler_name") and isinstance(data.get("sampler_index"), str):
        data["sampler_name"] = data["sampler_index"]
    return read_raw(RawPayload(name, "txt2img", data, has_all_fields=False))


def read_reported(
    paths: Iterable[Path | str],
) -> tuple[tuple[Payload, ...], tuple[PayloadReport, ...]]:
    """Read payload files; a folder stands for every payload file in it, by name.

    Args:
        paths: Files and folders: JSON, YAML, TOML, msgpack, lists of prompts, pictures.

    Returns:
        The payloads, and a report on each.

    Raises:
        PayloadError: A file is missing or wrong, two have one name, or there is none.
    """
    read = [
        read_raw(raw) for path in payload_files(paths) for raw in parse_file(Path(path))
    ]
    if not read:
        raise PayloadError(
            "No payload file was given; choose at least one (.json, .yaml, .toml, a "
            "list of prompts, or a picture)."
        )
    payloads = tuple(payload for payload, _ in read)
    _check_names(payloads)
    return payloads, tuple(report for _, report in read)


def read_payloads(paths: Iterable[Path | str]) -> tuple[Payload, ...]:
    """Read payload files as `read_reported` does; what is to say goes to the log.

    Raises:
        PayloadError: A file is missing or wrong, two have one name, or there is none.
    """
    payloads, reports = read_reported(paths)
    for report in reports:
        for sentence in report.sentences():
            _log.warning("%s", sentence)
    return payloads


def _check_names(payloads: Sequence[Payload]) -> None:
    names = [payload.name for payload in payloads]
    for name in names:
        if names.count(name) > 1:
            raise PayloadError(
                f"Two payload files are named '{name}'; rename one, because pictures "
                "and scores are told apart by it."
            )


def draw_payloads(
    payloads: Iterable[Payload], seed: int, wildcards: Path | None
) -> tuple[Payload, ...]:
    """Draw wildcards once and for all: n_iter prompts a payload, each a payload.

    The drawn payloads keep the seed of theirs, as in AutoMBW, so that only the prompt
    tells their pictures apart.

    Args:
        payloads: Any payloads; those without wildcards, or drawn before, stay.
        seed: The study's.
        wildcards: The folder of wildcard files.

    Raises:
        PayloadError: A wildcard that is not there, or a syntax that cannot be read.
    """
    files = Wildcards(wildcards)
    drawn: list[Payload] = []
    for payload in payloads:
        drawn.extend((payload,) if payload.is_drawn else _drawn(payload, seed, files))
    _check_names(drawn)
    return tuple(drawn)


def _drawn(payload: Payload, seed: int, wildcards: Wildcards) -> list[Payload]:
    columns = []
    for role, text in (("+", payload.prompt), ("-", payload.negative_prompt)):
        columns.append(
            draw(
                text,
                payload.wildcard_type,
                payload.n_iter,
                wildcards=wildcards,
                seed=(seed, payload.name, role),
                where=f"Payload {payload.name}",
            )
        )
    prompts, negatives = columns
    if payload.wildcard_type == COMBINATORIAL:
        # Every prompt counts; a shorter list of negative ones begins anew.
        negatives = [negatives[i % len(negatives)] for i in range(len(prompts))]
    pairs = list(zip(prompts, negatives, strict=True))
    if not all(prompt.strip() for prompt, _ in pairs):
        raise PayloadError(f"Payload {payload.name}: a drawn prompt is empty.")
    width = len(str(len(pairs)))
    return [
        replace(
            payload,
            name=f"{payload.name}-{i:0{width}}" if len(pairs) > 1 else payload.name,
            prompt=prompt,
            negative_prompt=negative,
            n_iter=1,
            template=payload.prompt,
            negative_template=payload.negative_prompt,
        )
        for i, (prompt, negative) in enumerate(pairs, 1)
    ]


def split_payloads(
    payloads: Sequence[Payload], share: float, seed: int
) -> tuple[tuple[Payload, ...], tuple[Payload, ...]]:
    """Keep a share of the payloads back, to see how well a winner does on others.

    Args:
        payloads: At least two.
        share: Part that is kept back, above 0 and below 1; at least one payload is,
            and at least one is not.
        seed: Of the choice; names decide, not places.

    Returns:
        Payloads to search with, and held-out ones, both in their order.

    Raises:
        PayloadError: Too few payloads, or no such share.
    """
    if not 0 < share < 1:
        raise PayloadError(f"A share of {share:g} cannot be held out; use 0.1 to 0.5.")
    if len(payloads) < 2:
        raise PayloadError(
            "A single payload cannot be split; give a second one, or hold none out."
        )
    n_held_out = min(max(1, round(share * len(payloads))), len(payloads) - 1)
    by_chance = sorted(payloads, key=lambda p: derive_seed("split", seed, p.name))
    names = {payload.name for payload in by_chance[:n_held_out]}
    training = tuple(p for p in payloads if p.name not in names)
    return training, tuple(p for p in payloads if p.name in names)
