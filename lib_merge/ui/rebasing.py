"""Git Re-Basin from the tab: one alignment at a time, its report kept to look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lib_merge.core.dtypes import DType
from lib_merge.core.ports import Host, Progress
from lib_merge.errors import RecipeError
from lib_merge.formats.block_text import Scope, read_blocks, settings_of
from lib_merge.methods import methods
from lib_merge.ui import markup
from lib_merge.ui.jobs import JobSlot

if TYPE_CHECKING:
    from lib_merge.analysis.rebasin.matching import MatchOptions
    from lib_merge.analysis.rebasin.outcome import Outcome, Wanted
    from lib_merge.analysis.rebasin.pair import Pair
    from lib_merge.analysis.rebasin.report import Report

_SHOWN = 12
"""Permutations that the page lists; those that moved most."""


@dataclass(frozen=True)
class RebasinForm:
    """What the page's controls say.

    Attributes:
        model_a: The model that stays.
        model_b: The model that is aligned to it.
        alpha: Place between A (0) and aligned B (1).
        blocks: Alpha by block as text.
        merged: Where the weighted sum goes, or None.
        aligned: Where aligned B goes, or None.
        save_dtype: Type of the sum.
        seed: Of the order of matching.
        iterations: Passes at most.
        overwrite: Whether existing files may be replaced.
        heads: Numbers of attention heads as text, for models of unusual width.
    """

    model_a: Path
    model_b: Path
    alpha: float
    blocks: str
    merged: Path | None
    aligned: Path | None
    save_dtype: DType | None
    seed: int
    iterations: int
    overwrite: bool
    heads: str = ""


class RebasinDesk:
    """Aligns pairs in the background and keeps the last report.

    Args:
        host: Where it computes, and whose catalog learns of new files.
    """

    def __init__(self, host: Host) -> None:
        self.job = JobSlot()
        self._host = host
        self._report: Report | None = None
        self.n_files = 0

    @property
    def report(self) -> Report | None:
        """Of the last alignment that came to its end."""
        return self._report

    def start(self, form: RebasinForm) -> None:
        """Check everything, then start.

        Raises:
            RecipeError: Every fault of models, outputs and weights.
            CheckpointError: A header that cannot be read.
            DiskFullError: There is no room.
            InputError: Another alignment runs.
        """
        from lib_merge.analysis.rebasin.heads import read_heads
        from lib_merge.analysis.rebasin.matching import MatchOptions
        from lib_merge.analysis.rebasin.outcome import check_wanted
        from lib_merge.analysis.rebasin.pair import open_pair

        n_heads = read_heads(form.heads or None)
        pair = open_pair(form.model_a, form.model_b, n_heads=n_heads)
        wanted = _wanted(form, pair)
        check_wanted(pair, wanted)
        device = self._host.devices.device()
        options = MatchOptions(form.seed, form.iterations, device=device)

        def work(progress: Progress) -> str:
            return self._work(pair, wanted, options, progress)

        self.job.start("Git Re-Basin", work)

    def _work(
        self, pair: Pair, wanted: Wanted, options: MatchOptions, progress: Progress
    ) -> str:
        from lib_merge.analysis.rebasin.matching import match_pair
        from lib_merge.analysis.rebasin.outcome import save_outcome
        from lib_merge.analysis.rebasin.report import report_of
        from lib_merge.analysis.rebasin.state import state_file_of
        from lib_merge.engine.run import RunOptions

        state = state_file_of(pair, options.seed, options.device)
        matching = match_pair(pair, options, progress=progress, state_file=state)
        outcome = save_outcome(
            pair,
            matching,
            wanted,
            seed=options.seed,
            options=RunOptions(device=options.device),
            progress=progress,
        )
        self._report = report_of(pair, matching)
        state.remove()
        return self._saved(outcome)

    def _saved(self, outcome: Outcome) -> str:
        """Tell the host of the new files; what to say of them."""
        told = []
        for what, file in (("aligned B", outcome.aligned), ("merge", outcome.merged)):
            if file is not None:
                self._host.catalog.register(file.path)
                size = markup.size(file.path.stat().st_size)
                told.append(f"{what} {file.path.name} ({size}), {file.sha256[:10]}")
        self.n_files += len(told)
        notes = [*outcome.warnings]
        if outcome.merged is not None:
            notes += outcome.merged.warnings
        return " ".join([f"saved {', '.join(told)}.", *notes])


def _wanted(form: RebasinForm, pair: Pair) -> Wanted:
    """What is to be written.

    Raises:
        RecipeError: No output, or wrong block weights.
    """
    from lib_merge.analysis.rebasin.outcome import METHOD, Wanted

    problems: list[str] = []
    if form.merged is None and form.aligned is None:
        problems.append(
            "No output is named; give a name for the merge, for aligned B, or both."
        )
    method = methods().get(METHOD)
    scope = Scope(method, pair.architecture)
    texts = [form.blocks] if form.blocks.strip() else []
    blocks = read_blocks(texts, scope, "Block weights", problems)
    if problems:
        raise RecipeError(problems)
    return Wanted(
        merged=form.merged,
        aligned=form.aligned,
        alpha=settings_of({"alpha": form.alpha}, blocks, (), method)["alpha"],
        save_dtype=form.save_dtype,
        overwrite=form.overwrite,
    )


def report_html(report: Report) -> str:
    """Distances before and after, and what moved most."""
    matching = report.matching
    state = "nothing left to improve" if matching.is_settled else "not settled yet"
    facts = [
        f"{report.model_b} aligned to {report.model_a}: "
        f"{markup.count(len(matching.scores) - 1, 'sweep')}, {state}.",
        *report.warnings,
    ]
    moved = sorted(
        (move for move in report.moves if move.n_moved),
        key=lambda move: -move.n_moved / move.width,
    )
    facts.append(f"{len(moved)} of {len(report.moves)} permutations moved something.")
    distances = [
        (
            one.name,
            f"{one.before.distance:.4f}",
            f"{one.after.distance:.4f}",
            f"{one.before.cosine:.6f}",
            f"{one.after.cosine:.6f}",
        )
        for one in report.distances
    ]
    moves = [
        (move.name, f"{move.n_moved} of {move.width}", f"{move.gain:.4g}")
        for move in moved[:_SHOWN]
    ]
    heads = ("Component", "L2 before", "L2 after", "Cosine before", "Cosine after")
    return (
        f'<div class="merge-note">{markup.lines(facts)}</div>'
        + markup.table(heads, distances)
        + (markup.table(("Permutation", "Moved", "Gain"), moves) if moves else "")
    )
