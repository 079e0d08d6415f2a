"""What became of every field of a payload that was read: used, default, or unused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from lib_merge.core.ports import Renderer, RenderRequest

OLD_FIELDS = (
    *("enable_hr", "denoising_strength", "firstphase_width", "firstphase_height"),
    *("hr_scale", "hr_upscaler", "hr_second_pass_steps", "hr_resize_x", "hr_resize_y"),
    *("prompt", "seed", "sampler_name", "batch_size", "n_iter", "steps", "cfg_scale"),
    *("width", "height", "restore_faces", "tiling", "negative_prompt"),
    *("wildcard_type", "reverse_scoring"),
)
"""The 23 fields of AutoMBW's payload files; absent ones are worth a word."""

REASONS: Mapping[str, str] = {
    "firstphase_width": "WebUIs have had no such first pass since 2023",
    "firstphase_height": "WebUIs have had no such first pass since 2023",
    "override_settings_restore_afterwards": "settings are always restored",
    "alwayson_scripts": "other extensions' scripts do not run in a study",
    "script_name": "other extensions' scripts do not run in a study",
    "script_args": "other extensions' scripts do not run in a study",
    "refiner_checkpoint": "a study renders its own merge only",
    "refiner_switch_at": "a study renders its own merge only",
    "hr_checkpoint_name": "a study renders its own merge only",
    "sd_model_checkpoint": "a study renders its own merge only",
    "Model": "a study renders its own merge only",
    "Model hash": "a study renders its own merge only",
    "sampler_index": "sampler_name says it already",
    "send_images": "pictures are kept in the study's folder",
    "save_images": "pictures are kept in the study's folder",
    "do_not_save_samples": "pictures are kept in the study's folder",
    "do_not_save_grid": "pictures are kept in the study's folder",
    "Batch size": "a picture's infotext stands for this one picture",
    "Batch pos": "a picture's infotext stands for this one picture",
    "Version": "the WebUI's own version counts",
}
"""Why fields that users have in their files have no effect here."""


@dataclass(frozen=True)
class PayloadReport:
    """Every field of one payload.

    Attributes:
        name: The payload's name.
        source: The file, or where else it came from.
        used: Fields that were read and have an effect.
        defaults: (field, value) of AutoMBW's fields that were absent.
        unused: (field, why) of fields without effect.
        notes: Anything else to know, full sentences.
    """

    name: str
    source: str
    used: tuple[str, ...] = ()
    defaults: tuple[tuple[str, str], ...] = ()
    unused: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def sentences(self) -> tuple[str, ...]:
        """What a user should read; nothing when every field was used."""
        lines = []
        unknown = [name for name, why in self.unused if not why]
        if unknown:
            lines.append(f"unknown fields are ignored: {', '.join(unknown)}.")
        lines += [f"{name} has no effect: {why}." for name, why in self.unused if why]
        if self.defaults:
            values = ", ".join(f"{name} = {value}" for name, value in self.defaults)
            lines.append(f"absent fields take defaults: {values}.")
        return tuple(f"{self.source}: {line}" for line in (*lines, *self.notes))


def report_on(
    data: Mapping[str, Any],
    known: Mapping[str, Any],
    *,
    name: str,
    source: str,
    notes: Sequence[str] = (),
    has_all_fields: bool = True,
) -> PayloadReport:
    """What becomes of each field.

    Args:
        data: The fields as they were read.
        known: Every field that has an effect, with its default.
        name: The payload's name.
        source: Where it came from.
        notes: More sentences.
        has_all_fields: Whether the format names every field, so that an absent one is
            worth a word.
    """
    unused = []
    for key in sorted(data):
        is_default = key in known and data[key] == known[key]
        if key in REASONS and not is_default and data[key] not in (None, "", [], {}):
            unused.append((key, REASONS[key]))
        elif key not in known and key not in REASONS and key != "name":
            unused.append((key, ""))
    dead = {key for key, _ in unused}
    used = tuple(key for key in data if key in known and key not in dead)
    absent = [key for key in OLD_FIELDS if key not in data and key != "prompt"]
    defaults = tuple((key, repr(known[key])) for key in absent if has_all_fields)
    return PayloadReport(name, source, used, defaults, tuple(unused), tuple(notes))


def host_notes(
    payloads: Iterable[tuple[str, Sequence[RenderRequest]]], renderer: Renderer
) -> tuple[str, ...]:
    """What the host cannot do of what payloads ask for, each thing once.

    Args:
        payloads: (name, requests) each.
        renderer: The host's.
    """
    names: dict[str, list[str]] = {}
    for name, requests in payloads:
        for request in requests[:1]:
            for sentence in renderer.unsupported(request):
                names.setdefault(sentence, []).append(name)
    return tuple(f"{', '.join(who)}: {what}" for what, who in names.items())


REQUEST_FIELDS = frozenset(field.name for field in fields(RenderRequest))
"""Fields that reach the host."""
