"""The demo models as something to search: real merges, real pictures, their judge.

It answers like `_family.Landscape`, so that the same contestants search it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tests.bench._family import N_SHOTS

TRUE_BLOCKS = range(100, 104)
"""Held-out blocks of pictures that say what a point is worth: 48 pictures that no
search sees, of the same prompts in the same shares as those of a trial."""


class DemoLandscape:
    """Block weights of AutoMBW's 27 blocks over demo_a and demo_b.

    Pictures come in blocks of 12, one prompt after another, each with its own seed: the
    pictures of block b are 12 b to 12 b + 11. A block is rendered in one go, so that a
    picture is the same whoever asks for it, in whatever order.

    Args:
        seed: Which pictures: another seed has others for the search, but the same for
            the truth.
    """

    def __init__(self, seed: int) -> None:
        from lib_merge.autombw.scorers._image_reward_files import LoadedNet
        from lib_merge.core.block_orders import CSV_ORDER
        from lib_merge.demo import JUDGE_WEIGHTS, MODEL_A, MODEL_B, _measure
        from lib_merge.demo.train import load_pipeline

        self._first_block = 200 + 10 * seed
        self._order = [CSV_ORDER.index(block) for block in _measure.BLOCKS]
        self._bench = _measure.Bench(
            pipe=load_pipeline(MODEL_A),
            first=_measure.unet_tensors(MODEL_A),
            second=_measure.unet_tensors(MODEL_B),
            judge=LoadedNet(JUDGE_WEIGHTS, JUDGE_WEIGHTS.with_name("vocab.txt")),
        )
        self._bench.pipe.set_progress_bar_config(disable=True)
        self._known: dict[tuple[tuple[float, ...], int], list[float]] = {}

    def picture(self, x: Sequence[float], shot: int) -> float:
        """The judge's score of one picture; held-out shots begin at `N_SHOTS`."""
        block, index = divmod(shot, N_SHOTS)
        return self._block(x, self._first_block + block)[index]

    def trial(self, x: Sequence[float]) -> float:
        """The mean score of a whole trial."""
        return sum(self.picture(x, shot) for shot in range(N_SHOTS)) / N_SHOTS

    def true(self, x: Sequence[float]) -> float:
        """What a point is worth, on pictures that no search sees."""
        scores = [score for block in TRUE_BLOCKS for score in self._block(x, block)]
        return sum(scores) / len(scores)

    def _block(self, x: Sequence[float], block: int) -> list[float]:
        from lib_merge.demo import DEMO_PROMPTS, _measure

        place = (tuple(x), block)
        if place not in self._known:
            weights = [float(x[index]) for index in self._order]
            self._bench.mix(weights)
            prompts = [DEMO_PROMPTS[i % len(DEMO_PROMPTS)] for i in range(N_SHOTS)]
            pictures = _measure.render(self._bench.pipe, prompts, N_SHOTS * block)
            raw = self._bench.judge.score(pictures, prompts)
            # As the study of the demo tells them: 0 to 1, whatever the judge's scale.
            self._known[place] = [1.0 / (1.0 + math.exp(-value)) for value in raw]
        return self._known[place]
