"""Stable Diffusion 3 medium: 24 joint blocks, CLIP-L, CLIP-G, T5 and a 16-channel VAE.

Source: key layout of the Stability AI release; diffusers names as in diffusers'
`convert_sd3_transformer_checkpoint_to_diffusers`.
"""

from __future__ import annotations

from lib_merge.arch import _sd3

ARCHITECTURE = _sd3.architecture(
    "sd3_medium", "Stable Diffusion 3 medium", 24, has_norms=False, is_rest=True
)
