"""What of a WebUI's request the standalone host does otherwise, or not at all."""

from __future__ import annotations

import re
from collections.abc import Mapping

from lib_merge.core.ports import RenderRequest

LATENT_MODES: Mapping[str, tuple[str, bool]] = {
    "Latent": ("bilinear", False),
    "Latent (antialiased)": ("bilinear", True),
    "Latent (bicubic)": ("bicubic", False),
    "Latent (bicubic antialiased)": ("bicubic", True),
    "Latent (nearest)": ("nearest", False),
    "Latent (nearest-exact)": ("nearest-exact", False),
}
"""The WebUI's latent upscalers: torch's interpolation mode, and whether antialiased."""

_SYNTAX = re.compile(r"[()\[\]]|<\w+:[^>]*>|\b(?:AND|BREAK)\b")


def unsupported(request: RenderRequest) -> tuple[str, ...]:
    """What of a request is left out or done otherwise, one sentence each."""
    found = []
    texts = (request.prompt, request.negative_prompt, request.hr_prompt)
    if any(_SYNTAX.search(text) for text in texts):
        found.append(
            "emphasis brackets, AND, BREAK and <lora:...> are plain words to the "
            "standalone host; a WebUI reads them."
        )
    if request.restore_faces:
        found.append("the standalone host restores no faces: left out.")
    if request.tiling:
        found.append("the standalone host makes no tiles: left out.")
    if request.vae:
        found.append(
            f"the standalone host uses the checkpoint's own VAE, not '{request.vae}'."
        )
    if request.styles:
        names = ", ".join(request.styles)
        found.append(f"the standalone host knows no styles ({names}): left out.")
    for name, value in request.override_settings:
        found.append(
            f"the standalone host has no setting {name} = {value!r}: left out."
        )
    if request.subseed_strength:
        found.append("the standalone host has no variation seed: left out.")
    if request.enable_hr:
        found += _hires(request)
    return tuple(found)


def _hires(request: RenderRequest) -> list[str]:
    found = []
    if request.hr_upscaler not in LATENT_MODES:
        found.append(
            f"the standalone host has no upscaler '{request.hr_upscaler}'; it enlarges "
            "the latent picture, as 'Latent' does."
        )
    return found
