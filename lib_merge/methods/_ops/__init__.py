"""Tensor kernels that several methods share: pure, on any device."""
