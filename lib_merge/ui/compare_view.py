"""A comparison as HTML: the table of models, the map and the charts, all clickable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lib_merge.ui import markup

if TYPE_CHECKING:
    from lib_merge.analysis.comparison import Comparison
    from lib_merge.analysis.drawing import Drawing
    from lib_merge.analysis.groups import Grouping
    from lib_merge.analysis.histogram import Histogram

MAX_HEAT_MODELS = 120
"""Models up to which the heat map is drawn on the page: more are cells of a pixel, and
the page would be sent megabytes; the exported file always has them all."""

_N_NAMED = 8


@dataclass(frozen=True)
class Looked:
    """What the user wants to see of a comparison.

    Attributes:
        part: A component, a block, or "all".
        method: How the map is laid out.
        pair: Two models to look at block by block, or None.
        picked: Positions of the ticked models.
    """

    part: str
    method: str
    pair: tuple[int, int] | None = None
    picked: tuple[int, ...] = ()


def plane_of(comparison: Comparison, part: str, method: str) -> Drawing:
    """The map of the models.

    Raises:
        InputError: The layout's library is missing, or there are too few models.
    """
    from lib_merge.analysis.charts import model_plane
    from lib_merge.analysis.groups import group_models
    from lib_merge.analysis.map import map_models

    sums = comparison.part(part)
    outliers = [outlier.model for outlier in group_models(sums).outliers]
    return model_plane(comparison, map_models(sums, method, outliers), part)


def comparison_html(
    comparison: Comparison, looked: Looked, histogram: Histogram | None = None
) -> str:
    """The whole view.

    Args:
        comparison: What was found.
        looked: What is wanted of it.
        histogram: Of two of the models, or None.

    Raises:
        InputError: The map cannot be laid out that way.
    """
    from lib_merge.analysis import charts
    from lib_merge.analysis.drawing import to_svg
    from lib_merge.analysis.groups import group_models

    grouping = group_models(comparison.part(looked.part))
    pieces = [
        _remarks(comparison, grouping),
        _figure(
            to_svg(plane_of(comparison, looked.part, looked.method), is_file=False)
        ),
        _table(comparison, looked, grouping),
    ]
    if len(comparison.names) <= MAX_HEAT_MODELS:
        heat = charts.heat_map(comparison, looked.part)
        pieces.append(_figure(to_svg(heat, is_file=False)))
    bars = charts.base_bars(comparison, looked.part)
    pieces.append(_figure(to_svg(bars, is_file=False)))
    if looked.pair is not None and comparison.blocks:
        strip = charts.block_strip(comparison, *looked.pair)
        pieces.append(_figure(to_svg(strip, is_file=False)))
    if histogram is not None:
        drawn = charts.histogram_bars(histogram)
        pieces.append(_figure(to_svg(drawn, is_file=False)))
    pieces.append(_predictions(comparison))
    return "".join(pieces)


def _figure(svg: str) -> str:
    return f'<div class="merge-figure">{svg}</div>'


def _remarks(comparison: Comparison, grouping: Grouping) -> str:
    """Copies, outliers and clusters, in sentences."""
    found = list(_sentences(comparison, grouping))
    return f'<div class="merge-note">{markup.lines(found)}</div>' if found else ""


def _sentences(comparison: Comparison, grouping: Grouping) -> Iterator[str]:
    names = comparison.names
    for group in grouping.copies:
        yield f"Equal in every value: {_listed([names[i] for i in group])}."
    for group in grouping.alike:
        yield f"Nearly equal: {_listed([names[i] for i in group])}."
    for outlier in grouping.outliers:
        yield (
            f"Outlier: {names[outlier.model]}, {outlier.factor:.1f} times farther from "
            "its nearest neighbour than is usual here."
        )
    if grouping.n_clusters > 1:
        yield f"{grouping.n_clusters} clusters, coloured in the map."
    if comparison.left_out:
        entry = comparison.left_out[0]
        yield (
            f"{markup.count(len(comparison.left_out), 'tensor')} could not be compared "
            f"(the first: {entry.key}: {entry.reason}); the exported JSON lists all."
        )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_N_NAMED])
    n_more = len(names) - _N_NAMED
    return f"{shown} and {n_more} more" if n_more > 0 else shown


def _table(comparison: Comparison, looked: Looked, grouping: Grouping) -> str:
    """One row a model, with the box that ticks it."""
    sums = comparison.part(looked.part)
    far, relative = sums.l2()[sums.base], sums.relative_l2()[sums.base]
    base = comparison.names[comparison.base]
    head = (
        "<tr><th>Tick</th><th>Model</th>"
        f"<th>L2 from {markup.text(base)}</th><th>Relative</th>"
        "<th>Nearest</th><th>L2 to it</th><th>Cluster</th></tr>"
    )
    rows = []
    for i, name in enumerate(comparison.names):
        near = grouping.nearest[i]
        ticked = " checked" if i in looked.picked else ""
        share = f"{relative[i]:.4f}" if relative[i] == relative[i] else "-"
        cells = (
            name + (" (base)" if i == comparison.base else ""),
            f"{far[i]:.6g}",
            share,
            comparison.names[near.model],
            f"{near.distance:.6g}",
            grouping.cluster_of[i] or "-",
        )
        rows.append(
            f'<tr><td><input type="checkbox" data-merge-tick="{i}"{ticked} '
            f'aria-label="Tick {markup.text(name)}"></td>'
            + "".join(f"<td>{markup.text(cell)}</td>" for cell in cells)
            + "</tr>"
        )
    return (
        '<div class="merge-scroll"><table class="merge-table">'
        f"<thead>{head}</thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _predictions(comparison: Comparison) -> str:
    """Where merges of these models would lie."""
    if not comparison.predictions:
        return ""
    rows = []
    for found in comparison.predictions:
        pool = [found.distances[i] for i in comparison.pool]
        how = "exactly" if found.share == 1 else f"on {found.share:.0%} of the values"
        error = found.errors[comparison.base]
        give = f" ± {error:.2g}" if error else ""
        cells = (
            found.part,
            found.method,
            f"{found.distances[comparison.base]:.6g}{give}",
            f"{min(pool):.6g} to {max(pool):.6g}",
            how,
        )
        rows.append(cells)
    heads = ("Part", "Method", "L2 from the base", "L2 from the models", "Found")
    return (
        '<div class="merge-heading">Where a merge of these models would lie</div>'
        + markup.table(heads, rows)
    )
