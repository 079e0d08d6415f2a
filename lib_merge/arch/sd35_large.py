"""Stable Diffusion 3.5 large: 38 joint blocks; the turbo model has the same tensors.

Source: key layout of the Stability AI release.
"""

from __future__ import annotations

from lib_merge.arch import _sd3

ARCHITECTURE = _sd3.architecture(
    "sd35_large", "Stable Diffusion 3.5 large", 38, has_norms=True
)
