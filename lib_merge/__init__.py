"""MergeLab: Stable Diffusion model merging and AutoMBW, inside and outside a WebUI."""

__version__ = "0.1.0"
