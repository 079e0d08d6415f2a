"""image_reward: where it looks for its files and what it says when they are absent."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from lib_merge.autombw.scorers import image_reward
from lib_merge.autombw.scorers._image_reward_files import find_vocabulary, preprocess
from lib_merge.demo import JUDGE_WEIGHTS
from lib_merge.errors import NonFiniteError, ScorerError

SCORER = image_reward.SCORER


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HOME", raising=False)
    return tmp_path


def _install_weights(home: Path) -> Path:
    """A small network under ImageReward's name, by way of the same loader."""
    path = home / ".cache" / "ImageReward" / "ImageReward.pt"
    path.parent.mkdir(parents=True)
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(JUDGE_WEIGHTS), path)
    return path


def _cache_vocabulary(home: Path) -> Path:
    folder = home / "hub" / "models--bert-base-uncased" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    vocabulary = folder / "vocab.txt"
    vocabulary.write_bytes(JUDGE_WEIGHTS.with_name("vocab.txt").read_bytes())
    return vocabulary


def _picture() -> Image.Image:
    return Image.fromarray(np.full((64, 64, 3), 128, dtype=np.uint8))


def test_reason_names_the_file_and_the_url_when_weights_are_absent(home: Path) -> None:
    reason = SCORER.unavailable_reason()

    assert reason is not None
    assert str(home / ".cache/ImageReward/ImageReward.pt") in reason
    assert image_reward.URL in reason
    with pytest.raises(ScorerError, match=r"not on this machine, and HF_HUB_OFFLINE"):
        SCORER.load()


def test_reason_names_the_vocabulary_when_only_that_is_absent(home: Path) -> None:
    _install_weights(home)

    assert image_reward.VOCABULARY_URL in (SCORER.unavailable_reason() or "")
    with pytest.raises(ScorerError, match="words of bert-base-uncased are missing"):
        SCORER.load()


def test_plain_network_loads_when_all_files_are_there(home: Path) -> None:
    _install_weights(home)
    _cache_vocabulary(home)

    assert SCORER.unavailable_reason() is None
    scores = SCORER.load().score([_picture()], ["a red circle"])
    assert np.isfinite(scores).all()


def test_vocabulary_beside_the_weights_comes_first(home: Path) -> None:
    weights = _install_weights(home)
    cached = _cache_vocabulary(home)

    assert find_vocabulary(weights, image_reward.hub_caches()) == cached
    beside = weights.with_name("vocab.txt")
    beside.write_bytes(cached.read_bytes())
    assert find_vocabulary(weights, image_reward.hub_caches()) == beside


class _FakePackage(ModuleType):
    """The package's two entry points, as image-reward 1.5 has them."""

    def __init__(self, answer: float) -> None:
        super().__init__("ImageReward")
        self.__spec__ = __import__("importlib.machinery").machinery.ModuleSpec(
            "ImageReward", None
        )
        self.answer = answer
        self.asked: list[tuple[str, str, str]] = []

    def load(self, name: str, *, device: str, med_config: str) -> _FakePackage:
        self.asked.append((name, device, med_config))
        return self

    def score(self, _prompt: str, _image: Image.Image) -> float:
        return self.answer


def _package(
    home: Path, monkeypatch: pytest.MonkeyPatch, answer: float
) -> _FakePackage:
    (_install_weights(home).with_name("med_config.json")).write_text("{}")
    package = _FakePackage(answer)
    monkeypatch.setitem(sys.modules, "ImageReward", package)
    return package


def test_package_is_used_when_it_loads(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = _package(home, monkeypatch, answer=1.25)

    loaded = SCORER.load(device="cpu")

    assert loaded.score([_picture()] * 2, ["a", "b"]) == [1.25, 1.25]
    folder = home / ".cache/ImageReward"
    expected = (str(folder / "ImageReward.pt"), "cpu", str(folder / "med_config.json"))
    assert package.asked == [expected]
    loaded.close()
    with pytest.raises(ScorerError, match="was closed"):
        loaded.score([_picture()], ["a"])


def test_package_answer_is_refused_when_it_is_not_finite(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _package(home, monkeypatch, answer=float("inf"))

    with pytest.raises(NonFiniteError, match="answered inf"):
        SCORER.load().score([_picture()], ["a"])


def test_plain_network_is_used_when_the_package_is_broken(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = _package(home, monkeypatch, answer=1.25)
    _cache_vocabulary(home)

    def broken(*_args: object, **_named: object) -> None:
        raise ImportError("No module named 'clip'")

    monkeypatch.setattr(package, "load", broken)

    assert SCORER.load().score([_picture()], ["a red circle"]) != [1.25]


@pytest.mark.parametrize("size", [(224, 224), (448, 224), (100, 333)], ids=str)
def test_preprocess_cuts_the_centre_square(size: tuple[int, int]) -> None:
    width, height = size
    values = np.zeros((height, width, 3), dtype=np.uint8)
    values[height // 2 - 10 : height // 2 + 10, width // 2 - 10 : width // 2 + 10] = 255

    batch = preprocess([Image.fromarray(values)], 224)

    assert batch.shape == (1, 3, 224, 224)
    bright = (batch[0, 0] > 0).nonzero().float().mean(dim=0)
    assert bright.tolist() == pytest.approx([111.5, 111.5], abs=1.0)
