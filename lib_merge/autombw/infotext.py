"""Infotext: the "parameters" text that WebUIs write into pictures, as payload fields.

Source: the format as AUTOMATIC1111/stable-diffusion-webui reads it back (modules/
infotext_utils.py): the prompt, "Negative prompt: ...", then one line of "Key: value"
pairs, values with commas as JSON strings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lib_merge.errors import PayloadError

_PAIR = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
_SIZE = re.compile(r"^\s*(\d+)\s*x\s*(\d+)\s*$")
_NEGATIVE = "Negative prompt:"
_LEAST_PAIRS = 3
"""A last line with fewer pairs is part of the prompt."""

_NAMES: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "Steps": ("steps", int),
    "Sampler": ("sampler_name", str),
    "Schedule type": ("scheduler", str),
    "CFG scale": ("cfg_scale", float),
    "Seed": ("seed", int),
    "Variation seed": ("subseed", int),
    "Variation seed strength": ("subseed_strength", float),
    "Denoising strength": ("denoising_strength", float),
    "Hires upscale": ("hr_scale", float),
    "Hires steps": ("hr_second_pass_steps", int),
    "Hires upscaler": ("hr_upscaler", str),
    "Hires prompt": ("hr_prompt", str),
    "Hires negative prompt": ("hr_negative_prompt", str),
    "Hires sampler": ("hr_sampler_name", str),
    "Hires schedule type": ("hr_scheduler", str),
    "Hires CFG Scale": ("hr_cfg", float),
    "Clip skip": ("clip_skip", int),
    "VAE": ("vae", str),
}
_SETTINGS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "ENSD": ("eta_noise_seed_delta", int),
    "RNG": ("randn_source", str),
    "Emphasis": ("emphasis", str),
    "NGMS": ("s_min_uncond", float),
    "Token merging ratio": ("token_merging_ratio", float),
    "Token merging ratio hr": ("token_merging_ratio_hr", float),
    "SGM noise multiplier": ("sgm_noise_multiplier", lambda text: text == "True"),
    "Pad conds": ("pad_cond_uncond", lambda text: text == "True"),
}
"""Keys that are settings of the WebUI, not of the picture."""


def parse_infotext(text: str, where: str) -> dict[str, Any]:
    """Payload fields; keys that mean nothing to a payload stay under their own name.

    Raises:
        PayloadError: It is no infotext, or a value cannot be read.
    """
    prompt, negative, pairs = split_infotext(text)
    if not pairs or "Steps" not in pairs:
        raise PayloadError(
            f"{where} holds no infotext of a WebUI (no line 'Steps: ..., Sampler: "
            "...'); choose a picture that a WebUI has saved."
        )
    fields: dict[str, Any] = {"prompt": prompt, "negative_prompt": negative}
    settings: dict[str, Any] = {}
    for key, value in pairs.items():
        if key in _NAMES:
            name, read = _NAMES[key]
            fields[name] = _read(read, key, value, where)
        elif key in _SETTINGS:
            name, read = _SETTINGS[key]
            settings[name] = _read(read, key, value, where)
        else:
            fields.update(_others(key, value))
    if settings:
        fields["override_settings"] = settings
    fields["enable_hr"] = bool({"Hires upscale", "Hires resize"} & set(pairs))
    return fields


def split_infotext(text: str) -> tuple[str, str, dict[str, str]]:
    """(prompt, negative prompt, pairs of the last line)."""
    lines = text.strip().split("\n")
    pairs = _pairs(lines[-1])
    if len(pairs) >= _LEAST_PAIRS:
        lines.pop()
    else:
        pairs = {}
    prompt: list[str] = []
    negative: list[str] = []
    part = prompt
    for line in map(str.strip, lines):
        if line.startswith(_NEGATIVE):
            part = negative
            line = line.removeprefix(_NEGATIVE).strip()
        part.append(line)
    return "\n".join(prompt).strip(), "\n".join(negative).strip(), pairs


def _pairs(line: str) -> dict[str, str]:
    return {found[1]: _unquoted(found[2]) for found in _PAIR.finditer(line)}


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == '"':
        try:
            return str(json.loads(text))
        except ValueError:
            return text
    return text.strip()


def _read(read: Callable[[str], Any], key: str, value: str, where: str) -> Any:
    try:
        return read(value)
    except ValueError as fault:
        raise PayloadError(
            f"{where}: '{key}: {value}' is no number; correct the picture's text."
        ) from fault


def _others(key: str, value: str) -> dict[str, Any]:
    size = _SIZE.match(value)
    if key == "Size" and size:
        return {"width": int(size[1]), "height": int(size[2])}
    if key == "Hires resize" and size:
        return {"hr_resize_x": int(size[1]), "hr_resize_y": int(size[2])}
    if key == "Face restoration":
        return {"restore_faces": value not in ("", "None")}
    if key == "Tiling":
        return {"tiling": value == "True"}
    return {key: value}


def read_picture(path: Path) -> str:
    """The infotext in a PNG, JPEG or WebP.

    Raises:
        PayloadError: It is no picture, or holds none.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            found = image.info.get("parameters") or _comment(image.getexif())
            workflow = "workflow" in image.info
    except (OSError, ValueError, SyntaxError) as fault:
        raise PayloadError(
            f"{path} cannot be read as a picture ({fault}); choose another one."
        ) from fault
    if found:
        return str(found)
    why = ", but a ComfyUI workflow, which is no payload" if workflow else ""
    raise PayloadError(
        f"{path} holds no infotext{why}; choose a picture that a WebUI has saved, with "
        "'Save text information about generation parameters' switched on."
    )


_EXIF_PART = 0x8769
_USER_COMMENT = 0x9286


def _comment(exif: Any) -> str:
    """The Exif user comment: an encoding's name in 8 bytes, then the text."""
    data = exif.get_ifd(_EXIF_PART).get(_USER_COMMENT, b"")
    if isinstance(data, str):
        return data
    code, text = bytes(data[:8]), bytes(data[8:])
    if code.startswith(b"UNICODE"):
        # WebUIs write big-endian; some editors turn it round.
        is_little = len(text) > 1 and text[1] == 0 != text[0]
        return text.decode("utf-16-le" if is_little else "utf-16-be", "replace")
    return text.decode("utf-8", "replace").strip("\0")
