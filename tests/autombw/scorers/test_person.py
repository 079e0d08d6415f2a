"""person: questions at the desk, ratings from choices, kept over a restart."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from lib_merge.autombw.scorers import person
from lib_merge.autombw.scorers._ratings import MAX_ANCHORS, Choice, rating
from lib_merge.autombw.scorers.person import DESK, SCORER, Question
from lib_merge.errors import Cancelled, InputError, ScorerError

Rule = Callable[[Question], str]


def grey(level: int) -> Image.Image:
    """A picture of one level."""
    return Image.new("RGB", (16, 16), (level, level, level))


def level(image: Image.Image) -> float:
    """Its level, JPEG or not."""
    return float(image.getpixel((8, 8))[0])  # type: ignore[index,arg-type]


def lighter(question: Question) -> str:
    """A person who likes light pictures."""
    left, right = level(question.left), level(question.right)
    return "equal" if abs(left - right) < 3 else "left" if left > right else "right"


class Somebody:
    """Answers in a thread of its own, as a tab does."""

    def __init__(self, rule: Rule) -> None:
        self.seen: list[Question] = []
        self._rule = rule
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while not self._stop.wait(0.001):
            question = DESK.question()
            if question is not None:
                self.seen.append(question)
                assert DESK.answer(question.number, self._rule(question))

    def leave(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
def somebody() -> Iterator[Somebody]:
    """A person at the desk."""
    DESK.open()
    one = Somebody(lighter)
    yield one
    one.leave()
    DESK.close()


def test_ratings_follow_the_persons_taste(somebody: Somebody) -> None:
    """The first picture is 0; lighter ones are above it, darker ones below."""
    loaded = SCORER.load()
    levels = [100, 200, 50, 150, 101]
    scores = loaded.score([grey(v) for v in levels], ["x"] * 5)
    assert scores[0] == 0.0
    assert scores[1] > scores[3] > scores[0] > scores[2]
    assert scores[4] == pytest.approx(0.0, abs=0.5)
    assert len(somebody.seen) == 0 + 1 + 2 + 3 + 3
    assert {q.prompt for q in somebody.seen} == {"x"}


def test_prompts_are_rated_apart(somebody: Somebody) -> None:
    """A cat is not compared with a dog."""
    loaded = SCORER.load(options={"pairs": "1"})
    assert loaded.score([grey(10), grey(200)], ["cat", "dog"]) == [0.0, 0.0]
    assert somebody.seen == []
    loaded.score([grey(90)], ["dog"])
    assert len(somebody.seen) == 1


def test_new_picture_is_shown_on_both_sides(somebody: Somebody) -> None:
    """So that a person who favours a side favours nothing."""
    loaded = SCORER.load(options={"pairs": "1"})
    for value in range(1, 25):
        loaded.score([grey(10 * value)], ["x"])
    sides = {level(q.left) > level(q.right) for q in somebody.seen}
    assert sides == {True, False}


def test_ratings_survive_a_restart(somebody: Somebody, tmp_path: Path) -> None:
    """Another process compares with the same pictures under the same ratings."""
    folder = tmp_path / "person"
    SCORER.load(weights=folder).score([grey(100), grey(200)], ["x", "x"])
    n_before = len(somebody.seen)
    (score,) = SCORER.load(weights=folder).score([grey(150)], ["x"])
    assert len(somebody.seen) == n_before + 2
    assert 0 < score < 1.5
    again = SCORER.load(weights=folder)
    for value in range(20):
        again.score([grey(12 * value)], ["x"])
    assert len(list(folder.glob("*.jpg"))) <= MAX_ANCHORS
    (folder / "ratings.json").write_text("[{}]")
    with pytest.raises(ScorerError, match=r"ratings\.json is damaged"):
        SCORER.load(weights=folder)


def test_nobody_there_is_the_reason() -> None:
    """On the command line nobody would ever answer."""
    assert "Nobody shows pictures" in (SCORER.unavailable_reason() or "")
    with pytest.raises(ScorerError, match="Nobody shows pictures"):
        SCORER.load()


def test_wrong_options_and_answers_are_refused() -> None:
    """One clear error each; an answer to an old question changes nothing."""
    DESK.open()
    try:
        assert "pairs is '0'" in (
            SCORER.unavailable_reason(options={"pairs": "0"}) or ""
        )
        with pytest.raises(InputError, match="'both' is no answer; use left, right"):
            DESK.answer(1, "both")
        assert not DESK.answer(10**9, "left")
    finally:
        DESK.close()


def test_stop_ends_the_question() -> None:
    """A study that is stopped does not wait for a person."""
    n_polls = 0

    def check() -> None:
        nonlocal n_polls
        n_polls += 1
        if n_polls == 2:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        person.Desk().ask("x", grey(1), grey(2), check)
    assert n_polls == 2


@pytest.mark.parametrize("won", [0.0, 0.5, 1.0])
def test_rating_is_where_the_likelihood_peaks(won: float) -> None:
    """No nearby value is more likely under Bradley and Terry with the prior."""
    choices = [Choice(0.3, won), Choice(-1.0, 1.0), Choice(0.9, 0.5)]

    def likelihood(value: float) -> float:
        total = -(value**2) / (2 * 1.5**2)
        for choice in choices:
            chance = 1 / (1 + math.exp(choice.opponent - value))
            total += choice.won * math.log(chance)
            total += (1 - choice.won) * math.log(1 - chance)
        return total

    found = rating(choices)
    assert likelihood(found) > likelihood(found + 1e-3)
    assert likelihood(found) > likelihood(found - 1e-3)
    assert rating([]) == 0.0
