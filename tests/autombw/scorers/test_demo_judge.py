"""The demo's judge ranks right above wrong, and a scorer's files are checked."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from lib_merge.autombw.scorers import _image_reward_files as files
from lib_merge.autombw.scorers import scorers
from lib_merge.autombw.scorers.demo_judge import SCORER
from lib_merge.core.ports import LoadedScorer
from lib_merge.demo import JUDGE_WEIGHTS, shapes
from lib_merge.demo.shapes import SUBJECTS
from lib_merge.errors import NonFiniteError, ScorerError

VOCABULARY = JUDGE_WEIGHTS.with_name("vocab.txt")


@pytest.fixture(scope="module")
def judge() -> LoadedScorer:
    return SCORER.load()


def _picture(values: np.ndarray) -> Image.Image:
    return Image.fromarray((values * 255.0).round().astype(np.uint8))


def _drawn(seed: int) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    return [_picture(shapes.draw(subject, rng)) for subject in SUBJECTS]


def test_registry_knows_it() -> None:
    assert "demo_judge" in scorers()
    assert SCORER.unavailable_reason() is None


def test_right_prompt_scores_highest_when_pictures_are_fresh(
    judge: LoadedScorer,
) -> None:
    prompts = [subject.prompt for subject in SUBJECTS]
    n_right = n_pairs = n_ordered = 0
    for seed in range(4):
        for i, picture in enumerate(_drawn(seed + 500)):
            scores = np.array(judge.score([picture] * len(prompts), prompts))
            n_right += int(scores.argmax()) == i
            n_ordered += int((scores[i] > np.delete(scores, i)).sum())
            n_pairs += len(scores) - 1

    assert n_right / (4 * len(SUBJECTS)) > 0.9
    assert n_ordered / n_pairs > 0.98


def test_score_falls_step_by_step_when_a_picture_fades(judge: LoadedScorer) -> None:
    rng = np.random.default_rng(9)
    means = []
    for kept in (1.0, 0.6, 0.3, 0.0):
        drawn = [shapes.draw(subject, rng) for subject in SUBJECTS]
        faded = [p.mean((0, 1)) * (1 - kept) + p * kept for p in drawn]
        prompts = [subject.prompt for subject in SUBJECTS]
        means.append(np.mean(judge.score([_picture(p) for p in faded], prompts)))

    assert means == sorted(means, reverse=True)
    assert means[0] - means[-1] > 1.5


def test_scores_do_not_depend_on_the_batch(judge: LoadedScorer) -> None:
    prompts = [subject.prompt for subject in SUBJECTS] * 2
    pictures = _drawn(1) + _drawn(2)

    together = judge.score(pictures, prompts)
    alone = [judge.score([p], [t])[0] for p, t in zip(pictures, prompts, strict=True)]

    assert together == pytest.approx(alone, abs=1e-4)


def test_long_prompt_is_cut_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    loaded = SCORER.load()
    prompt = "a red circle " * 20
    with caplog.at_level(logging.WARNING):
        loaded.score(_drawn(0)[:2], [prompt, prompt])

    warnings = [r for r in caplog.records if "first 35" in r.getMessage()]
    assert len(warnings) == 1
    cut, _ = files.PromptTokens(VOCABULARY).encode([prompt])
    assert cut.shape == (1, files.MAX_TOKENS)
    assert cut[0, 0] == 2  # [CLS]
    assert cut[0, -1] == 3  # [SEP] stays at the end


def test_score_is_refused_after_close() -> None:
    loaded = SCORER.load()
    loaded.close()

    with pytest.raises(ScorerError, match="was closed; load it again"):
        loaded.score(_drawn(0)[:1], ["a red circle"])


def test_score_is_refused_when_counts_differ(judge: LoadedScorer) -> None:
    with pytest.raises(ScorerError, match="2 pictures came with 1 prompts"):
        judge.score(_drawn(0)[:2], ["a red circle"])


def _damaged(folder: Path, **changes: torch.Tensor | None) -> Path:
    state = load_file(JUDGE_WEIGHTS)
    for name, value in changes.items():
        key = name.replace("__", ".")
        if value is None:
            del state[key]
        else:
            state[key] = value
    save_file(state, folder / "judge.safetensors")
    (folder / "vocab.txt").write_bytes(VOCABULARY.read_bytes())
    return folder / "judge.safetensors"


def test_nan_score_is_an_error(tmp_path: Path) -> None:
    path = _damaged(tmp_path, mlp__layers__7__bias=torch.tensor([float("nan")]))

    with pytest.raises(NonFiniteError, match="answered nan for a picture of 'a red c"):
        SCORER.load(weights=path).score(_drawn(0)[:1], ["a red circle"])


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"blip__visual_encoder__pos_embed": None}, "holds no ImageReward network"),
        ({"blip__visual_encoder__norm__bias": None}, "does not fit"),
        ({"blip__visual_encoder__norm__bias": torch.zeros(3)}, "does not fit"),
        ({"extra__weight": torch.zeros(3)}, "does not fit"),
    ],
    ids=["no-positions", "missing", "wrong-shape", "left-over"],
)
def test_load_is_refused_when_weights_do_not_fit(
    tmp_path: Path, changes: dict[str, torch.Tensor | None], match: str
) -> None:
    path = _damaged(tmp_path, **changes)

    with pytest.raises(ScorerError, match=match):
        SCORER.load(weights=path)


def test_load_is_refused_when_files_are_missing_or_broken(tmp_path: Path) -> None:
    with pytest.raises(ScorerError, match=r"no\.pt do not exist"):
        files.read_weights(tmp_path / "no.pt")
    for name in ("cut.pt", "cut.safetensors"):
        (tmp_path / name).write_bytes(JUDGE_WEIGHTS.read_bytes()[:1000])
        with pytest.raises(ScorerError, match="again"):
            files.read_weights(tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ScorerError, match="holds a list"):
        files.read_weights(tmp_path / "list.pt")
    weights = tmp_path / "judge.safetensors"
    weights.write_bytes(JUDGE_WEIGHTS.read_bytes())
    with pytest.raises(ScorerError, match=r"vocabulary .*vocab\.txt does not exist"):
        SCORER.load(weights=weights)


def test_load_is_refused_when_the_vocabulary_is_another(tmp_path: Path) -> None:
    path = _damaged(tmp_path)
    words = VOCABULARY.read_text().splitlines() + [f"word{i}" for i in range(9)]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")

    with pytest.raises(ScorerError, match="the network knows 24 words"):
        SCORER.load(weights=path).score(_drawn(0)[:1], ["word8"])


def test_weights_code_is_never_run_when_a_pickle_is_hostile(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "ran",))  # type: ignore[return-value]

    torch.save({"a": Hostile()}, tmp_path / "evil.pt")

    with pytest.raises(ScorerError, match="cannot be read"):
        files.read_weights(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()
