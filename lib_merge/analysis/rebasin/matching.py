"""Weight matching: the permutations of B that bring it closest to A.

The distance of A from B as permuted is least where their inner product, the score, is
highest. With all permutations but one held fast, the score is a sum over that one's
channels, so that the best choice of it is a linear assignment. The search improves one
permutation after another in a seeded order until none can be improved; the score never
falls. Permutations without a common tensor do not see each other, so their assignments
run side by side and give what they would give one after another.

A search from the identity finds the way where models have a common ancestor. Where they
have little in common, a first guess is made, too: permutations are chosen one by one,
each only on the tensors whose other axis is fixed or already chosen. Of a model that
was only permuted it finds every permutation (its own channels fit no others better, by
the Cauchy-Schwarz inequality). The better of the two by score is where the search
starts.

Source: Ainsworth, Hayase, Srinivasa, Git Re-Basin: Merging Models modulo Permutation
Symmetries, 2022, https://arxiv.org/abs/2209.04836, algorithm 1. Beyond it are the first
guess and the constraints of groups and heads, which make assignments of assignments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lib_merge.analysis.rebasin._assign import Scores, is_best
from lib_merge.analysis.rebasin._budget import Shares, shares_of
from lib_merge.analysis.rebasin._queue import SolveQueue
from lib_merge.analysis.rebasin._scores import (
    Arithmetic,
    full_precision,
    product_cost,
    score_channels,
    usable,
)
from lib_merge.analysis.rebasin.measure import Sums, measure_pair, total
from lib_merge.analysis.rebasin.pair import Pair, PairReader
from lib_merge.analysis.rebasin.state import SearchState, StateFile
from lib_merge.core.blocks import Component
from lib_merge.core.dtypes import DType
from lib_merge.core.ports import Progress
from lib_merge.core.seeds import derive_seed
from lib_merge.engine.progress import NullProgress
from lib_merge.errors import Cancelled, InputError, MemoryLimitError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lib_merge.analysis.rebasin.spec import Permutations

ALIKE = 0.9
"""Models whose every component has at least this cosine need no first guess."""

_ROUNDING = 32.0
"""A gain counts when it exceeds so many units of rounding of what it is made of."""


@dataclass(frozen=True)
class MatchOptions:
    """How a search is run.

    Attributes:
        seed: Of the order of permutations.
        iterations: Sweeps over all permutations at most.
        budget_bytes: Most memory for tensors, products and assignments. Python and
            torch themselves come on top (about 300 MB).
        device: torch device that computes the products.
        dtype: What they are computed in, float32 or float64.
    """

    seed: int = 0
    iterations: int = 10
    budget_bytes: int = 2 << 30
    device: str = "cpu"
    dtype: DType = DType.F32


@dataclass(frozen=True)
class Matching:
    """What a search found.

    Attributes:
        permutations: B's channel at result[i] belongs to A's channel i.
        start: Where the search began: "identity" or "guess".
        scores: Inner products of A with B as permuted: at the start and after every
            sweep.
        gains: What each permutation added to the score after the start.
        is_settled: Whether no single permutation can be improved any more.
        before: A compared with B, by component.
        after: A compared with B as permuted.
    """

    permutations: Mapping[str, NDArray[np.int64]]
    start: str
    scores: tuple[float, ...]
    gains: Mapping[str, float]
    is_settled: bool
    before: Mapping[Component, Sums] = field(default_factory=dict)
    after: Mapping[Component, Sums] = field(default_factory=dict)


StepListener = Callable[[str, "Permutations"], None]


def match_pair(
    pair: Pair,
    options: MatchOptions | None = None,
    *,
    progress: Progress | None = None,
    state_file: StateFile | None = None,
    on_step: StepListener | None = None,
) -> Matching:
    """Find the permutations that bring B closest to A.

    Args:
        pair: The models.
        options: Seed, sweeps, memory and device.
        progress: Advanced by bytes and by products; asked once a tensor to stop.
        state_file: Where the search keeps how far it is; one that was stopped goes on
            from there. It stays until what was found is safe and the caller removes it.
        on_step: Called with the name of a permutation that was improved and with all
            of them.

    Raises:
        NonFiniteError: A model holds NaN or infinity.
        MemoryLimitError: The budget is too small, or memory ran out.
        InputError: The device does not exist.
        Cancelled: The user asked to stop; the state file tells how far it came.
    """
    import torch

    options = options or MatchOptions()
    progress = progress or NullProgress()
    if options.iterations < 0:
        raise InputError(
            f"{options.iterations} iterations are not possible; give 0 or more."
        )
    shares = shares_of(pair, options.budget_bytes, options.dtype)
    _check_device(options.device)
    with PairReader(pair, shares.cache_bytes) as reader, full_precision():
        before = measure_pair(reader, {}, progress, label="Comparing A and B")
        search = _Search(reader, options, shares, progress, state_file, on_step)
        try:
            search.run(before)
        except torch.cuda.OutOfMemoryError as fault:
            raise MemoryLimitError(
                f"{options.device} ran out of memory; give a smaller --memory, or "
                "compute on the cpu."
            ) from fault
        state = search.state
        after = measure_pair(
            reader, state.permutations, progress, label="Comparing A and aligned B"
        )
    return Matching(
        permutations=state.permutations,
        start=state.start,
        scores=tuple(state.scores),
        gains=dict(state.gains),
        is_settled=not state.waiting,
        before=before,
        after=after,
    )


def _check_device(device: str) -> None:
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as fault:
        raise InputError(
            f"Device '{device}' cannot be used ({str(fault).splitlines()[0]}); use "
            "cpu, or cuda:0 where torch has CUDA."
        ) from fault


class _Search:
    """One search; its state is whole after every permutation."""

    def __init__(
        self,
        reader: PairReader,
        options: MatchOptions,
        shares: Shares,
        progress: Progress,
        state_file: StateFile | None,
        on_step: StepListener | None,
    ) -> None:
        import torch

        self._reader = reader
        self._spec = reader.pair.spec
        self._options = options
        self._shares = shares
        self._progress = progress
        self._file = state_file
        self._on_step = on_step
        dtype: torch.dtype = getattr(torch, options.dtype.torch_name)
        self._how = Arithmetic(options.device, dtype, shares.run_elements)
        self._unit = _ROUNDING * torch.finfo(dtype).eps
        found = state_file.load() if state_file is not None else None
        self.state = found or SearchState(self._spec.identity())

    def run(self, before: Mapping[Component, Sums]) -> None:
        """Search until nothing can be improved, or the sweeps are used up."""
        try:
            if self.state.is_guessing:
                self._start(before)
            while self.state.waiting and self.state.sweep < self._options.iterations:
                self._sweep()
        except Cancelled as stop:
            if self._file is None:
                raise
            raise Cancelled(
                "Matching: stopped as asked; the same command goes on from here."
            ) from stop
        finally:
            if self._file is not None:
                self._file.save(self.state)

    def _start(self, before: Mapping[Component, Sums]) -> None:
        state = self.state
        score, start = total(before).inner, "identity"
        if any(sums.cosine < ALIKE for sums in before.values()):
            self._guess()
            sums = measure_pair(
                self._reader, state.permutations, self._progress, label="First guess"
            )
            if total(sums).inner > score:
                score, start = total(sums).inner, "guess"
            else:
                state.permutations = self._spec.identity()
        state.is_guessing, state.start = False, start
        state.score, state.scores = score, [score]
        state.waiting = set(self._spec.permutations)

    def _guess(self) -> None:
        """Choose permutations one by one, those first of which most is known."""
        state = self.state
        lots = {name: self._lot(0, name) for name in self._spec.permutations}
        left = [name for name in lots if name not in state.guessed]
        self._begin("First guess", left)
        chosen = set(state.guessed)

        def done(name: str, _: Scores | None, best: NDArray[np.int64]) -> None:
            state.permutations[name] = best
            state.guessed.append(name)
            self._note()

        with self._queue(done) as queue:
            while left:
                name = max(left, key=lambda n: (self._promise(n, chosen), lots[n]))
                left.remove(name)
                queue.wait_for(self._spec.neighbours[name])
                scores = self._score(name, settled=chosen)
                queue.submit(name, scores)
                chosen.add(name)

    def _promise(self, name: str, settled: set[str]) -> int:
        """How many numbers tell one channel of a permutation from another."""
        permutation = self._spec.permutations[name]
        found = 0
        for key, axis in usable(self._spec, permutation, settled):
            shape = self._spec.shapes[key]
            n_others = 1
            for side in (*shape[:axis], *shape[axis + 1 :]):
                n_others *= side
            found += n_others * len(permutation.slices_of(key, axis))
        return found

    def _lot(self, sweep: int, name: str) -> int:
        return derive_seed(self._options.seed, "rebasin", sweep, name)

    def _sweep(self) -> None:
        """Improve every permutation that may have become improvable, once."""
        state = self.state
        number = state.sweep + 1
        order = sorted(
            self._spec.permutations, key=lambda name: (self._lot(number, name), name)
        )
        places = {name: place for place, name in enumerate(order)}
        self._begin(
            f"Matching, sweep {number} of at most {self._options.iterations}",
            [name for name in order[state.position :] if name in state.waiting],
        )

        def done(name: str, scores: Scores | None, best: NDArray[np.int64]) -> None:
            state.waiting.discard(name)
            if scores is not None:
                self._accept(name, scores, best)
            state.position = places[name] + 1
            self._note()

        with self._queue(done) as queue:
            for name in order[state.position :]:
                queue.wait_for(self._spec.neighbours[name])
                if name not in state.waiting:
                    continue
                scores = self._score(name)
                present = state.permutations[name]
                if is_best(scores, present):
                    queue.submit_known(name, present)
                else:
                    queue.submit(name, scores)
        state.sweep, state.position = number, 0
        state.scores.append(state.score)

    def _queue(
        self, done: Callable[[str, Scores | None, NDArray[np.int64]], None]
    ) -> SolveQueue:
        return SolveQueue(self._spec, self._shares.pending_bytes, done)

    def _score(self, name: str, settled: set[str] | None = None) -> Scores:
        permutation = self._spec.permutations[name]
        scores = score_channels(
            self._reader,
            permutation,
            self.state.permutations,
            self._how,
            settled=settled,
            check=self._progress.check,
        )
        self._advance(product_cost(self._spec, permutation))
        return scores

    def _accept(self, name: str, scores: Scores, best: NDArray[np.int64]) -> None:
        """Take a better choice; one that rounding may have made up is none."""
        state = self.state
        present = state.permutations[name]
        moved = best != present
        gain = float((scores.chosen(best) - scores.chosen(present))[moved].sum())
        sizes = scores.norms_b[best] + scores.norms_b[present]
        if gain <= self._unit * float((scores.norms * sizes)[moved].sum()):
            return
        state.permutations[name] = best
        state.score += gain
        state.gains[name] = state.gains.get(name, 0.0) + gain
        state.waiting |= self._spec.neighbours[name]
        if self._on_step is not None:
            self._on_step(name, state.permutations)

    def _note(self) -> None:
        if self._file is not None:
            self._file.save(self.state, is_due=False)

    def _begin(self, label: str, names: list[str]) -> None:
        self._cost = 0
        costs = [product_cost(self._spec, self._spec.permutations[n]) for n in names]
        self._progress.start(label, max(1, sum(costs) // _COST_UNIT), "GFLOP")

    def _advance(self, cost: int) -> None:
        gained = (self._cost + cost) // _COST_UNIT - self._cost // _COST_UNIT
        self._cost += cost
        if gained:
            self._progress.advance(gained)


_COST_UNIT = 500_000_000
"""Multiplications with their additions in a GFLOP."""
