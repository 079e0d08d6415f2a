"""A person as the judge: of two pictures of one prompt, which is better?

The study's thread asks at the `DESK` and waits; whoever shows pictures to a person (the
AutoMBW tab) opens the desk, shows `DESK.question()` and gives `DESK.answer(...)`.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lib_merge.autombw.scorers._image_reward_files import check_counts
from lib_merge.autombw.scorers._ratings import Anchor, Anchors, Choice, rating
from lib_merge.core.ports import LoadedScorer, Progress, ScorerCard, ScorerOption
from lib_merge.core.seeds import derive_seed
from lib_merge.errors import InputError, ScorerError

if TYPE_CHECKING:
    from PIL.Image import Image

LEFT, RIGHT, EQUAL = "left", "right", "equal"
ANSWERS = (LEFT, RIGHT, EQUAL)

N_PAIRS = 3
"""Choices a picture, unless the option `pairs` says otherwise."""

_POLL_S = 0.25


@dataclass(frozen=True)
class Question:
    """Two pictures of one prompt; the new one is at either side by chance.

    Attributes:
        number: Counts up; an answer names it.
        prompt: Their prompt.
        left: One picture.
        right: The other.
    """

    number: int
    prompt: str
    left: Image
    right: Image


class Desk:
    """Where a study's thread asks and a person answers; one question at a time."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._question: Question | None = None
        self._answer: str | None = None
        self._n_asked = 0
        self._is_open = False

    @property
    def is_open(self) -> bool:
        """Whether somebody shows questions."""
        return self._is_open

    def open(self) -> None:
        """Say that questions are shown from now on."""
        self._is_open = True

    def close(self) -> None:
        """Say that nobody shows questions any more; a waiting study goes on waiting."""
        self._is_open = False

    def question(self) -> Question | None:
        """What is asked now, or None."""
        with self._changed:
            return self._question

    def answer(self, number: int, choice: str) -> bool:
        """Answer a question.

        Args:
            number: The question's.
            choice: left, right or equal: which is better.

        Returns:
            Whether that question was still open.

        Raises:
            InputError: No such choice.
        """
        if choice not in ANSWERS:
            raise InputError(f"'{choice}' is no answer; use {', '.join(ANSWERS)}.")
        with self._changed:
            if self._question is None or self._question.number != number:
                return False
            self._question, self._answer = None, choice
            self._changed.notify_all()
            return True

    def ask(
        self, prompt: str, left: Image, right: Image, check: Callable[[], None]
    ) -> str:
        """Ask, and wait for the answer.

        Args:
            prompt: The pictures' prompt.
            left: One picture.
            right: The other.
            check: Called while waiting; what it raises ends the question.
        """
        with self._changed:
            self._n_asked += 1
            self._answer = None
            self._question = Question(self._n_asked, prompt, left, right)
        try:
            while (answer := self._wait()) is None:
                check()
            return answer
        finally:
            with self._changed:
                self._question = None

    def _wait(self) -> str | None:
        """The answer, or None when none came for a moment."""
        with self._changed:
            if self._answer is None:
                self._changed.wait(_POLL_S)
            return self._answer


DESK = Desk()
"""The one desk of this process: it has one person in front of it."""


@dataclass(frozen=True)
class Person:
    """Asks a person to choose between pictures, and rates them by the choices.

    Range: about -3 to 3; higher is better; 0 is the first picture of a prompt. A new
    picture is compared with earlier ones of its prompt (three choices by default, each
    with the one nearest to what is known so far); its rating is the most likely one
    under Bradley and Terry's model, and is not changed later, so that a stopped study
    goes on as it began. A difference of 1 means 73 wins in 100.

    Source: Bradley, Terry, Rank Analysis of Incomplete Block Designs, 1952.
    """

    id: str = "person"
    label: str = "You (choose between pictures)"
    range: tuple[float, float] = (-3.0, 3.0)
    card: ScorerCard = field(
        default=ScorerCard(
            training="none; it is you",
            licence="yours",
            weights="none; ratings are kept in the study's folder `person`",
            options=(ScorerOption("pairs", str(N_PAIRS), "choices a picture"),),
            has_memory=True,
        ),
        repr=False,
    )

    def unavailable_reason(
        self,
        *,
        weights: Path | None = None,
        options: Mapping[str, str] | None = None,
    ) -> str | None:
        """Whether nobody is there to be asked."""
        if not DESK.is_open:
            return (
                "Nobody shows pictures to a person here; use it from the WebUI's tab."
            )
        try:
            _n_pairs(options or {})
        except ScorerError as fault:
            return str(fault)
        return None

    def load(
        self,
        *,
        device: str = "cpu",
        weights: Path | None = None,
        progress: Progress | None = None,
        options: Mapping[str, str] | None = None,
    ) -> LoadedScorer:
        """Read the ratings so far.

        Args:
            device: Not used.
            weights: The folder in which ratings are kept; None for in memory only.
            progress: Asked while waiting whether to stop.
            options: `pairs`.

        Raises:
            ScorerError: Nobody is there, or the ratings cannot be read.
        """
        reason = self.unavailable_reason(options=options)
        if reason is not None:
            raise ScorerError(reason)
        check = progress.check if progress is not None else _go_on
        return _Asking(DESK, Anchors(weights), _n_pairs(options or {}), check)


def _n_pairs(options: Mapping[str, str]) -> int:
    text = options.get("pairs") or str(N_PAIRS)
    if not text.isdigit() or not 1 <= int(text) <= 20:
        raise ScorerError(f"The option pairs is '{text}'; give a number from 1 to 20.")
    return int(text)


def _go_on() -> None:
    """Nobody asks to stop."""


class _Asking:
    """Rates by asking; satisfies the LoadedScorer port."""

    def __init__(
        self, desk: Desk, anchors: Anchors, n_pairs: int, check: Callable[[], None]
    ) -> None:
        self._desk = desk
        self._anchors = anchors
        self._n_pairs = n_pairs
        self._check = check

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        """Ratings; blocks until the person has chosen.

        Raises:
            ScorerError: The numbers of pictures and prompts differ.
            Cancelled: The study was stopped meanwhile.
        """
        check_counts(images, prompts)
        pairs = zip(images, prompts, strict=True)
        return [self._rate(image, prompt) for image, prompt in pairs]

    def _rate(self, image: Image, prompt: str) -> float:
        left_over = list(self._anchors.of(prompt))
        choices: list[Choice] = []
        while left_over and len(choices) < self._n_pairs:
            value = rating(choices)
            anchor = min(left_over, key=lambda one: abs(one.rating - value))
            left_over.remove(anchor)
            won = self._ask(image, anchor, prompt, len(choices))
            choices.append(Choice(anchor.rating, won))
        value = rating(choices)
        self._anchors.add(prompt, value, image)
        return value

    def _ask(self, image: Image, anchor: Anchor, prompt: str, turn: int) -> float:
        # People favour a side: the new picture changes it in no order they can learn.
        mark = hashlib.sha256(image.tobytes()).hexdigest()
        is_left = derive_seed("side", mark, repr(anchor.rating), turn) % 2 == 0
        pair = (image, anchor.image) if is_left else (anchor.image, image)
        answer = self._desk.ask(prompt, *pair, self._check)
        if answer == EQUAL:
            return 0.5
        return 1.0 if (answer == LEFT) == is_left else 0.0

    def close(self) -> None:
        """Nothing is held here; ratings are on disk."""


SCORER = Person()
