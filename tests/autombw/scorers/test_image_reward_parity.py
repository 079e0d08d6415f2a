"""The plain network gives the scores of the published image-reward package."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lib_merge.autombw.scorers import _image_reward_files as files
from lib_merge.demo import JUDGE_WEIGHTS
from tests.support.image_reward_shim import build_model, image_reward_package

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ImageReward") is None,
    reason="needs: pip install --no-deps image-reward==1.5",
)

PROMPTS = (
    "a red circle on the yellow square",
    "Blue, grey; and (unknown) words.",
    "a " * 60,
    "",
)
SIZES = ((48, 48), (96, 40), (31, 77), (64, 63))
MED_CONFIG = {
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 128,
    "initializer_range": 0.02,
    "intermediate_size": 256,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 48,
    "model_type": "bert",
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "pad_token_id": 0,
    "type_vocab_size": 2,
    "vocab_size": 24,
    "add_cross_attention": True,
}


def _pictures() -> list[Image.Image]:
    rng = np.random.default_rng(7)
    return [
        Image.fromarray(rng.integers(256, size=(h, w, 3), dtype=np.uint8))
        for w, h in SIZES
    ]


def test_scores_equal_the_package_when_weights_are_the_same(tmp_path: Path) -> None:
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_bytes(JUDGE_WEIGHTS.with_name("vocab.txt").read_bytes())
    config = tmp_path / "med_config.json"
    config.write_text(json.dumps(MED_CONFIG))
    with image_reward_package() as module:
        torch.manual_seed(11)
        theirs = build_model(
            module,
            vision=(192, 2, 3),
            head=(128, 96, 64, 32, 16, 1),
            image_px=32,
            med_config=config,
            vocabulary=vocabulary,
        )
        for parameter in theirs.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        torch.save(theirs.state_dict(), tmp_path / "ImageReward.pt")
        pairs = list(zip(PROMPTS, _pictures(), strict=True))
        expected = [theirs.score(prompt, picture) for prompt, picture in pairs]
    ours = files.LoadedNet(tmp_path / "ImageReward.pt", vocabulary)

    scores = ours.score(_pictures(), PROMPTS)

    assert np.std(expected) > 0.01
    assert scores == pytest.approx(expected, abs=1e-5)
