"""Every scorer: what it declares, and that importing it loads and asks nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from lib_merge.autombw.scorers import scorers
from lib_merge.autombw.scorers.brisque import SCORER as BRISQUE
from lib_merge.core.ports import Scorer
from lib_merge.errors import ScorerError

IDS = (
    *("brisque", "clip_score", "demo_judge", "hpsv2", "http_judge"),
    *("image_classifier", "image_reward", "laion_aesthetic", "person", "pickscore"),
)


def test_registry_has_every_scorer() -> None:
    """By permanent id."""
    assert scorers().ids() == IDS


@pytest.mark.parametrize("scorer", list(scorers()), ids=lambda s: s.id)
def test_scorer_declares_itself(scorer: Scorer) -> None:
    """A range that grows, and a card without gaps."""
    low, high = scorer.range
    assert low < high
    card = scorer.card
    assert card.training
    assert card.licence
    assert card.weights
    assert all(option.help for option in card.options)
    reason = scorer.unavailable_reason()
    assert reason is None or len(reason) > 20


def test_importing_the_scorers_loads_no_library_and_opens_no_socket() -> None:
    """In a fresh process."""
    code = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise SystemExit('a socket was opened')\n"
        "socket.socket.connect = refuse\n"
        "from lib_merge.autombw.scorers import scorers\n"
        "assert len(scorers()) == 10\n"
        "heavy = {'torch', 'transformers', 'numpy', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


class _Package(ModuleType):
    """The `brisque` package's one class."""

    def __init__(self, fault: Exception | None = None) -> None:
        super().__init__("brisque")
        self.__spec__ = __import__("importlib.machinery").machinery.ModuleSpec(
            "brisque", None
        )

        class Model:
            def __init__(self, *, url: bool) -> None:
                assert url is False

            def score(self, picture: object) -> float:
                if fault is not None:
                    raise fault
                return float(picture.mean())  # type: ignore[attr-defined]

        self.BRISQUE = Model


def test_brisque_is_minus_the_packages_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """Low is good there."""
    monkeypatch.setitem(sys.modules, "brisque", _Package())
    loaded = BRISQUE.load()
    assert loaded.score([Image.new("RGB", (9, 9), (30, 30, 30))], ["x"]) == [-30.0]
    loaded.close()
    with pytest.raises(ScorerError, match="was closed"):
        loaded.score([Image.new("RGB", (9, 9))], ["x"])


def test_brisque_that_does_not_work_here_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As with numpy 2.4: before the first trial."""
    fault = TypeError("only 0-dimensional arrays can be converted")
    monkeypatch.setitem(sys.modules, "brisque", _Package(fault))
    with pytest.raises(ScorerError, match=r"does not work here .*only 0-dimensional"):
        BRISQUE.load()


def test_brisque_is_disabled_without_its_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With what to install."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "package 'brisque' is missing" in (BRISQUE.unavailable_reason() or "")


def test_copy_of_the_tests_has_no_path_of_a_user() -> None:
    """The listing names folders under the home, never this machine's."""
    home = str(Path.home())
    assert all(home not in scorer.card.weights for scorer in scorers())
