"""A comparison as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lib_merge.analysis.charts import shorten
from lib_merge.analysis.comparison import Comparison
from lib_merge.analysis.groups import Grouping, group_models
from lib_merge.cli._progress import format_amount

_MOST_IN_MATRIX = 12
_N_NAMED = 5
_NAME = 40


def summary(comparison: Comparison, part: str) -> Iterator[str]:
    """What a reader wants to know first, line by line.

    Args:
        comparison: What was found.
        part: The part that is looked at closely.
    """
    yield from _facts(comparison)
    grouping = group_models(comparison.part(part))
    yield ""
    yield from _models(comparison, part, grouping)
    if len(comparison.names) <= _MOST_IN_MATRIX:
        yield ""
        yield from _matrix(comparison, part)
    yield ""
    yield from _remarks(comparison, grouping)
    yield from _parts(comparison)
    yield from _predictions(comparison)


def _facts(comparison: Comparison) -> Iterator[str]:
    base = comparison.names[comparison.base]
    yield f"models        {len(comparison.names)}, {comparison.architecture}"
    yield f"base          {base}"
    n_values = sum(sums.n_values for sums in comparison.components.values())
    if n_values:
        yield f"compared      {n_values:,} values of each model"
    if comparison.n_bytes:
        read = format_amount(comparison.n_bytes, "B")
        time = f"{comparison.seconds:.1f} s"
        yield f"read          {read} in {time}, {comparison.n_threads} threads"
    if comparison.left_out:
        yield f"left out      {len(comparison.left_out)} tensors:"
        for entry in comparison.left_out[:_N_NAMED]:
            yield f"  {entry.key}: {entry.reason}"
        if len(comparison.left_out) > _N_NAMED:
            yield f"  and {len(comparison.left_out) - _N_NAMED} more (all with --json)"


def _models(comparison: Comparison, part: str, grouping: Grouping) -> Iterator[str]:
    """One line a model."""
    sums = comparison.part(part)
    far, relative = sums.l2()[sums.base], sums.relative_l2()[sums.base]
    names = [shorten(name, _NAME) for name in comparison.names]
    width = max(len(name) for name in names)
    yield (
        f"{part:<{width + 4}}{'from base':>12}{'relative':>10}  "
        f"{'nearest':<{width}}{'L2':>12}  cluster"
    )
    for i, name in enumerate(names):
        near = grouping.nearest[i]
        share = f"{relative[i]:.4f}" if relative[i] == relative[i] else "-"
        cluster = grouping.cluster_of[i]
        yield (
            f"{i + 1:>3} {name:<{width}}{far[i]:>12.6g}{share:>10}  "
            f"{names[near.model]:<{width}}{near.distance:>12.6g}"
            f"  {cluster or '-'}{'  base' if i == comparison.base else ''}"
        )


def _matrix(comparison: Comparison, part: str) -> Iterator[str]:
    distances = comparison.part(part).l2()
    heads = "".join(f"{i + 1:>11}" for i in range(len(distances)))
    yield f"L2 {heads}"
    for i, row in enumerate(distances):
        yield f"{i + 1:>3}" + "".join(f"{value:>11.5g}" for value in row)


def _remarks(comparison: Comparison, grouping: Grouping) -> Iterator[str]:
    """Clusters, copies and outliers, by name."""
    names = comparison.names
    if grouping.n_clusters > 1:
        yield f"{grouping.n_clusters} clusters:"
        for number in range(1, grouping.n_clusters + 1):
            members = [i for i, c in enumerate(grouping.cluster_of) if c == number]
            yield f"  {number}: {_listed([names[i] for i in members])}"
    for group in grouping.copies:
        yield f"Equal in every value: {_listed([names[i] for i in group])}"
    for group in grouping.alike:
        yield f"Nearly equal: {_listed([names[i] for i in group])}"
    for outlier in grouping.outliers:
        yield (
            f"Outlier: {names[outlier.model]}, {outlier.factor:.1f} times farther from "
            "its nearest neighbour than is usual here"
        )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[: 2 * _N_NAMED])
    more = len(names) - 2 * _N_NAMED
    return f"{shown} and {more} more" if more > 0 else shown


def _parts(comparison: Comparison) -> Iterator[str]:
    """One line a component: how far from the base, and what the models share."""
    yield f"{'component':<12}{'values':>16}{'L2 from base':>26}"
    for name, sums in comparison.components.items():
        far = [d for i, d in enumerate(sums.l2()[sums.base]) if i != sums.base]
        span = f"{min(far):.6g} to {max(far):.6g}"
        copies = group_models(sums).copies
        shared = f"  equal in {_groups(comparison, copies)}" if copies else ""
        count = f"{sums.n_values:,}" if sums.n_values else "-"
        yield f"{name:<12}{count:>16}{span:>26}{shared}"


def _groups(comparison: Comparison, groups: Sequence[Sequence[int]]) -> str:
    if len(groups) == 1 and len(groups[0]) == len(comparison.names):
        return "all models"
    shown = [f"{len(group)} models" for group in groups[:_N_NAMED]]
    if len(groups) == 1:
        shown = [_listed([comparison.names[i] for i in groups[0]])]
    return "; ".join(shown)


def _predictions(comparison: Comparison) -> Iterator[str]:
    if not comparison.predictions:
        return
    yield ""
    yield "Where a merge of these models would lie (L2):"
    yield f"{'part':<10}{'method':<20}{'from base':>20}{'from the models':>26}  found"
    for found in comparison.predictions:
        pool = [found.distances[i] for i in comparison.pool]
        base = _measured(
            found.distances[comparison.base], found.errors[comparison.base]
        )
        span = f"{min(pool):.5g} to {max(pool):.5g}"
        how = "exactly"
        if found.share < 1:
            how = f"on {100 * found.share:.0f} % of the values"
        yield f"{found.part:<10}{found.method:<20}{base:>20}{span:>26}  {how}"


def _measured(value: float, error: float) -> str:
    return f"{value:.5g}" if error == 0 else f"{value:.5g} +- {error:.2g}"


def pair_table(comparison: Comparison, one: int, two: int) -> Iterator[str]:
    """Where two models differ, block by block."""
    names = f"{comparison.names[one]} and {comparison.names[two]}"
    yield f"{names}:"
    yield f"{'block':<12}{'L2':>12}{'relative':>10}{'cosine':>10}{'same sign':>11}"
    for name, sums in comparison.blocks.items():
        signs = sums.sign_agreement()[one, two] if sums.has_signs else float("nan")
        yield (
            f"{name:<12}{sums.l2()[one, two]:>12.6g}"
            f"{sums.relative_l2()[one, two]:>10.4f}{sums.cosine()[one, two]:>10.6f}"
            f"{'-' if signs != signs else f'{signs:.4f}':>11}"
        )
