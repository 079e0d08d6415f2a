"""Checkpoint files: bytes in and bytes out, nothing trusted that a header claims."""
