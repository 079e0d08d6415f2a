"""Counter-based seeds: a stable digest of names, the same on every machine and run."""

from __future__ import annotations

import hashlib


def derive_seed(*parts: int | str, bits: int = 32) -> int:
    """A seed from names and numbers, independent of PYTHONHASHSEED and order of work.

    Args:
        parts: What the seed belongs to, e.g. (run seed, "sampler", n_told).
        bits: Width of the result, 1 to 64.

    Returns:
        An integer in [0, 2**bits).
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        text = f"{type(part).__name__}:{part}".encode()
        digest.update(len(text).to_bytes(4, "little") + text)
    return int.from_bytes(digest.digest(), "little") >> (64 - bits)
