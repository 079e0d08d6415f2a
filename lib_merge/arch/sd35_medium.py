"""Stable Diffusion 3.5 medium: 24 joint blocks, 13 of them with a second attention.

Source: key layout of the Stability AI release (MMDiT-X).
"""

from __future__ import annotations

from lib_merge.arch import _sd3

ARCHITECTURE = _sd3.architecture(
    "sd35_medium", "Stable Diffusion 3.5 medium", 24, has_norms=True
)
