"""image_classifier on a tiny random ViT: the label that counts, and its log odds."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib_merge.autombw.scorers.image_classifier import SCORER
from lib_merge.errors import ScorerError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tests.support.tiny_scorers import pictures  # noqa: E402

PICTURES = pictures((40, 32), (32, 32), (50, 71))


def write(folder: Path, *labels: str) -> Path:
    """A tiny classifier with these labels."""
    torch.manual_seed(2)
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=8,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={name: i for i, name in enumerate(labels)},
    )
    model = transformers.ViTForImageClassification(config)
    torch.nn.init.normal_(model.classifier.weight, std=1.0)
    model.save_pretrained(folder)
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    processor.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("labels", "option", "index"),
    [
        (("not_aesthetic", "aesthetic"), "", 1),
        (("hq", "lq"), "", 0),
        (("anime", "real", "other"), "Real", 1),
    ],
    ids=["cafe", "shadow", "named"],
)
def test_sigmoid_of_the_score_is_the_labels_probability(
    labels: tuple[str, ...], option: str, index: int, tmp_path: Path
) -> None:
    """transformers' own softmax is the reference."""
    folder = write(tmp_path / "m", *labels)
    model = transformers.ViTForImageClassification.from_pretrained(folder).eval()
    processor = transformers.ViTImageProcessor.from_pretrained(folder)
    with torch.inference_mode():
        pixels = processor(images=PICTURES, return_tensors="pt")["pixel_values"]
        wanted = model(pixel_values=pixels).logits.softmax(1)[:, index]
    options = {"label": option} if option else None
    loaded = SCORER.load(weights=folder, options=options)
    scores = loaded.score(PICTURES, ["", "", ""])
    assert torch.tensor(scores).sigmoid().tolist() == pytest.approx(
        wanted.tolist(), abs=1e-5
    )
    loaded.close()
    with pytest.raises(ScorerError, match="was closed"):
        loaded.score(PICTURES, ["", "", ""])


def test_label_must_be_named_when_none_is_known(tmp_path: Path) -> None:
    """And a wrong name says what there is."""
    folder = write(tmp_path / "m", "anime", "real")
    with pytest.raises(ScorerError, match=r"Which label .* it has: anime, real"):
        SCORER.load(weights=folder)
    with pytest.raises(ScorerError, match="no label 'anima'; did you mean 'anime'"):
        SCORER.load(weights=folder, options={"label": "anima"})


def test_folder_without_preprocessor_is_refused(tmp_path: Path) -> None:
    """How pictures are scaled cannot be guessed."""
    folder = write(tmp_path / "m", "hq", "lq")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ScorerError, match=r"no preprocessor_config\.json"):
        SCORER.load(weights=folder)
