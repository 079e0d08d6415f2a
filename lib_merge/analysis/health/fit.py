"""Holds a file's keys and shapes against the layout of a whole checkpoint."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from lib_merge.analysis.health.expected import Expected, ExpectedKey
from lib_merge.core.blocks import KeyInfos

_LEAST_WIDTH = 16
"""Sides from here up are widths, which small models have less of; others are fixed."""

_MOST_ODD = 6
_ODD_SHARE = 0.1
"""So many sides may differ from the others before a small model has several widths."""

_FIRST_LAYERS = (
    "diffusion_model.input_blocks.0.0.weight",
    "diffusion_model.img_in.weight",
    "diffusion_model.x_embedder.proj.weight",
)
"""Layers that read the latent, of which some kin have more channels."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Fit:
    """How a file's keys agree with a layout.

    Attributes:
        found: Keys of the layout that the file has.
        missing: Keys of the layout that it lacks, though a whole file has them.
        misshapen: (key, the shape it should have).
        extra: Keys of the file that the layout does not have.
        widths: The file's width by that of the layout, where the two differ; 0 where
            the file has several.
    """

    found: tuple[str, ...]
    missing: tuple[str, ...]
    misshapen: tuple[tuple[str, Shape], ...]
    extra: tuple[str, ...]
    widths: Mapping[int, int]

    def shape_of(self, key: ExpectedKey) -> Shape:
        """The shape that a key should have in a model of these widths; 0 is any."""
        return tuple(self.widths.get(side, side) for side in key.info.shape)


def fit_of(infos: KeyInfos, expected: Expected) -> Fit:
    """Compare a file with a layout.

    Widths are read off the file: a model of half the width is whole, too, and a tensor
    stands out when it disagrees with the others.

    Args:
        infos: The file's keys in the architecture's names, without EMA weights.
        expected: What a whole file has.
    """
    found = tuple(key for key in expected if key in infos)
    missing = [k for k, e in expected.items() if e.is_required and k not in infos]
    widths = _widths(infos, expected, found)
    if widths:
        missing = [key for key in missing if not _is_cut(key, found)]
    bare = Fit(
        found=found,
        missing=tuple(missing),
        misshapen=(),
        extra=tuple(key for key in infos if key not in expected),
        widths=widths,
    )
    return replace(bare, misshapen=tuple(_misshapen(infos, expected, bare)))


def _misshapen(
    infos: KeyInfos, expected: Expected, fit: Fit
) -> Iterator[tuple[str, Shape]]:
    for key in fit.found:
        wanted, found = fit.shape_of(expected[key]), infos[key].shape
        is_alike = len(wanted) == len(found) and all(
            side in (0, real) for side, real in zip(wanted, found, strict=True)
        )
        if not is_alike and not _is_kin(key, found, wanted):
            yield key, wanted


def _is_cut(key: str, found: Sequence[str]) -> bool:
    """Whether a small model was built without the whole layer of a key."""
    parts = key.split(".")
    last = max((i for i, part in enumerate(parts) if part.isdigit()), default=None)
    if last is None:
        return False
    layers = ".".join(parts[:last]) + "."
    layer = f"{layers}{parts[last]}."
    has_others = any(name.startswith(layers) for name in found)
    return has_others and not any(name.startswith(layer) for name in found)


def _is_kin(key: str, found: Shape, wanted: Shape) -> bool:
    """Whether it is the wider first layer of an inpainting or depth model."""
    if not key.endswith(_FIRST_LAYERS) or len(found) != len(wanted):
        return False
    is_wider = len(found) > 1 and found[1] > wanted[1]
    return is_wider and (found[0], *found[2:]) == (wanted[0], *wanted[2:])


def _widths(
    infos: KeyInfos, expected: Expected, found: Sequence[str]
) -> Mapping[int, int]:
    n_equal = sum(expected[key].info.shape == infos[key].shape for key in found)
    if 2 * n_equal >= len(found):
        return {}
    votes: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for wanted, side in _sides(infos, expected, found):
        votes[wanted][side] += 1
    widths = {side: _elected(count) for side, count in votes.items()}
    return {side: width for side, width in widths.items() if side != width}


def _elected(votes: Counter[int]) -> int:
    """The width that nearly all tensors have, or 0."""
    width, count = votes.most_common(1)[0]
    others = sum(votes.values()) - count
    return width if others <= min(_MOST_ODD, count * _ODD_SHARE) else 0


def _sides(
    infos: KeyInfos, expected: Expected, found: Sequence[str]
) -> Iterator[tuple[int, int]]:
    for key in found:
        wanted, shape = expected[key].info.shape, infos[key].shape
        if len(wanted) == len(shape):
            for pair in zip(wanted, shape, strict=True):
                if pair[0] >= _LEAST_WIDTH:
                    yield pair
