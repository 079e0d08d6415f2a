"""Holds a file's keys and shapes against the layout of a whole checkpoint."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from lib_merge.analysis.health.expected import Expected, ExpectedKey
from lib_merge.checkpoint.names import stored_name
from lib_merge.core.blocks import KeyInfos, TensorInfo

_LEAST_WIDTH = 16
"""Sides from here up are widths, which small models have less of; others are fixed."""

_MOST_ODD = 6
_ODD_SHARE = 0.1
"""So many sides may differ from the others before a small model has several widths."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Fit:
    """How a file's keys agree with a layout.

    Attributes:
        names: The file's spelling by the layout's, of keys that it has.
        missing: Keys of the layout that it lacks, though a whole file has them.
        misshapen: (the file's spelling, the shape it should have).
        extra: Keys of the file that the layout does not have.
        widths: The file's width by that of the layout, where the two differ; 0 where
            the file has several.
    """

    names: Mapping[str, str]
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
        infos: The file's keys, without EMA shadow weights.
        expected: What a whole file has.
    """
    names = {key: name for key in expected if (name := stored_name(infos, key))}
    used = set(names.values())
    missing = [k for k, e in expected.items() if e.is_required and k not in names]
    widths = _widths(infos, expected, names)
    if widths:
        missing = [key for key in missing if not _is_cut(key, names)]
    bare = Fit(
        names=names,
        missing=tuple(missing),
        misshapen=(),
        extra=tuple(key for key in infos if key not in used),
        widths=widths,
    )
    return replace(bare, misshapen=tuple(_misshapen(infos, expected, bare)))


def _misshapen(
    infos: KeyInfos, expected: Expected, fit: Fit
) -> Iterator[tuple[str, Shape]]:
    for key, name in fit.names.items():
        wanted, found = fit.shape_of(expected[key]), infos[name].shape
        is_alike = len(wanted) == len(found) and all(
            side in (0, real) for side, real in zip(wanted, found, strict=True)
        )
        if not is_alike and not _is_kin(key, infos[name]):
            yield name, wanted


def _is_cut(key: str, names: Mapping[str, str]) -> bool:
    """Whether a small model was built without the whole layer of a key."""
    parts = key.split(".")
    last = max((i for i, part in enumerate(parts) if part.isdigit()), default=None)
    if last is None:
        return False
    layer = ".".join(parts[: last + 1]) + "."
    return not any(name.startswith(layer) for name in names)


def _is_kin(key: str, info: TensorInfo) -> bool:
    """Whether it is the wider first convolution of an inpainting or depth model."""
    if not key.endswith("diffusion_model.input_blocks.0.0.weight"):
        return False
    return len(info.shape) == 4 and info.shape[1] in (5, 7, 8, 9)


def _widths(
    infos: KeyInfos, expected: Expected, names: Mapping[str, str]
) -> Mapping[int, int]:
    n_equal = sum(
        expected[key].info.shape == infos[name].shape for key, name in names.items()
    )
    if 2 * n_equal >= len(names):
        return {}
    votes: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for wanted, found in _sides(infos, expected, names):
        votes[wanted][found] += 1
    widths = {side: _elected(count) for side, count in votes.items()}
    return {side: found for side, found in widths.items() if side != found}


def _elected(votes: Counter[int]) -> int:
    """The width that nearly all tensors have, or 0."""
    width, count = votes.most_common(1)[0]
    others = sum(votes.values()) - count
    return width if others <= min(_MOST_ODD, count * _ODD_SHARE) else 0


def _sides(
    infos: KeyInfos, expected: Expected, names: Mapping[str, str]
) -> Iterator[tuple[int, int]]:
    for key, name in names.items():
        wanted, found = expected[key].info.shape, infos[name].shape
        if len(wanted) == len(found):
            for pair in zip(wanted, found, strict=True):
                if pair[0] >= _LEAST_WIDTH:
                    yield pair
