"""pickscore, clip_score, hpsv2 and laion_aesthetic on tiny random CLIPs."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from lib_merge.autombw.scorers import clip_score, hpsv2, laion_aesthetic, pickscore
from lib_merge.autombw.scorers._clip import centre
from lib_merge.autombw.scorers._open_clip import to_transformers
from lib_merge.core.ports import Scorer
from lib_merge.errors import NonFiniteError, ScorerError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tests.support.tiny_scorers import SIZE_PX, pictures, write_clip  # noqa: E402

PROMPTS = ["a red circle", "a blue square", "a green cross"]
PICTURES = pictures((40, 32), (32, 32), (50, 71))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP's folder."""
    return write_clip(tmp_path_factory.mktemp("clip"))


def logits(folder: Path, pixels: object) -> list[float]:
    """transformers' own logits of each picture with its prompt."""
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    tokens = transformers.CLIPTokenizerFast.from_pretrained(folder)
    words = tokens(PROMPTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        found = model(**words, pixel_values=pixels)
    return found.logits_per_image.diagonal().tolist()


def test_pickscore_equals_transformers_own_logits(clip: Path) -> None:
    """Logit scale times cosine, pictures prepared by transformers' own processor."""
    processor = transformers.CLIPImageProcessor(
        size={"shortest_edge": SIZE_PX}, crop_size=SIZE_PX
    )
    pixels = processor(images=PICTURES, return_tensors="pt")["pixel_values"]
    assert torch.allclose(pixels, centre(PICTURES, SIZE_PX), atol=1e-6)
    scores = pickscore.SCORER.load(weights=clip).score(PICTURES, PROMPTS)
    assert scores == pytest.approx(logits(clip, pixels), abs=1e-4)
    assert max(scores) - min(scores) > 0.01


def test_clip_score_is_the_cosine_times_a_hundred(clip: Path) -> None:
    """Whatever the network's own logit scale."""
    scale = torch.tensor(3.0).exp()
    expected = [100 * x / float(scale) for x in logits(clip, centre(PICTURES, SIZE_PX))]
    scores = clip_score.SCORER.load(weights=clip).score(PICTURES, PROMPTS)
    assert scores == pytest.approx(expected, abs=1e-3)


def test_batches_do_not_change_scores(clip: Path) -> None:
    """Nine pictures go in two batches."""
    loaded = pickscore.SCORER.load(weights=clip)
    many = loaded.score(PICTURES * 3, PROMPTS * 3)
    assert many == pytest.approx(loaded.score(PICTURES, PROMPTS) * 3, abs=1e-4)


def test_too_long_a_prompt_is_cut_and_said_once(
    clip: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Words behind token 77 have no effect."""
    loaded = pickscore.SCORER.load(weights=clip)
    long = "a red circle " * 30
    both = loaded.score(PICTURES[:2], [long, long + "a blue square"])
    alone = loaded.score(PICTURES[1:2], [long])
    assert both[1:] == pytest.approx(alone, abs=1e-4)
    assert caplog.text.count("reads only the first 77") == 1


def test_closed_scorer_and_wrong_counts_are_refused(clip: Path) -> None:
    """One clear error each."""
    loaded = pickscore.SCORER.load(weights=clip)
    with pytest.raises(ScorerError, match="3 pictures came with 1 prompts"):
        loaded.score(PICTURES, ["a"])
    loaded.close()
    with pytest.raises(ScorerError, match="was closed"):
        loaded.score(PICTURES, PROMPTS)


def test_nan_in_the_weights_is_no_score(clip: Path, tmp_path: Path) -> None:
    """It is named."""
    model = transformers.CLIPModel.from_pretrained(clip)
    model.visual_projection.weight.data[0, 0] = float("nan")
    folder = write_clip(tmp_path / "bad")
    model.save_pretrained(folder)
    with pytest.raises(NonFiniteError, match="answered nan"):
        pickscore.SCORER.load(weights=folder).score(PICTURES, PROMPTS)


@pytest.mark.parametrize(
    "scorer", [pickscore.SCORER, clip_score.SCORER, hpsv2.SCORER], ids=lambda s: s.id
)
def test_reason_says_what_to_download_when_nothing_is_there(
    scorer: Scorer, home: Path
) -> None:
    """And loading says the same."""
    reason = scorer.unavailable_reason()
    assert reason is not None
    assert "download https://huggingface.co/" in reason
    with pytest.raises(ScorerError, match="download https://huggingface"):
        scorer.load()
    folder = home / "empty"
    folder.mkdir()
    assert str(folder) in (scorer.unavailable_reason(weights=folder) or "")


def test_hugging_face_cache_is_looked_into(home: Path, clip: Path) -> None:
    """As those libraries lay it out."""
    snapshots = home / "hub" / "models--yuvalkirstain--PickScore_v1" / "snapshots"
    snapshots.mkdir(parents=True)
    (snapshots / "abc").symlink_to(clip, target_is_directory=True)
    assert pickscore.SCORER.unavailable_reason() is None
    expected = pickscore.SCORER.load(weights=clip).score(PICTURES, PROMPTS)
    assert pickscore.SCORER.load().score(PICTURES, PROMPTS) == expected


def test_missing_words_are_named(home: Path, clip: Path, tmp_path: Path) -> None:
    """A folder with weights alone cannot read prompts."""
    folder = tmp_path / "mute"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((clip / name).read_bytes())
    reason = pickscore.SCORER.unavailable_reason(weights=folder)
    assert reason is not None
    assert "CLIP's words are missing" in reason
    with pytest.raises(ScorerError, match="CLIP's words are missing"):
        pickscore.SCORER.load(weights=folder)


def to_open_clip(folder: Path) -> dict[str, object]:
    """A transformers CLIP's weights under open_clip's names, written independently."""
    state = transformers.CLIPModel.from_pretrained(folder).state_dict()
    swaps = [
        ("vision_model.embeddings.class_embedding", "visual.class_embedding"),
        ("vision_model.embeddings.patch_embedding", "visual.conv1"),
        ("vision_model.embeddings.position_embedding.weight", "visual.positional_"),
        ("vision_model.pre_layrnorm", "visual.ln_pre"),
        ("vision_model.post_layernorm", "visual.ln_post"),
        ("vision_model.encoder.layers", "visual.transformer.resblocks"),
        ("text_model.encoder.layers", "transformer.resblocks"),
        ("text_model.embeddings.token_embedding", "token_embedding"),
        ("text_model.embeddings.position_embedding.weight", "positional_"),
        ("text_model.final_layer_norm", "ln_final"),
        ("layer_norm1", "ln_1"),
        ("layer_norm2", "ln_2"),
        ("mlp.fc1", "mlp.c_fc"),
        ("mlp.fc2", "mlp.c_proj"),
        ("self_attn", "attn"),
        ("positional_", "positional_embedding"),
    ]
    out: dict[str, object] = {}
    for key, value in state.items():
        if key == "visual_projection.weight":
            out["visual.proj"] = value.T.clone()
        elif key == "text_projection.weight":
            out["text_projection"] = value.T.clone()
        elif ".q_proj." in key:
            three = [state[key.replace("q_proj", f"{n}_proj")] for n in "qkv"]
            name = key.replace("q_proj.", "in_proj_")
            out[name] = torch.cat(three)
        elif ".k_proj." not in key and ".v_proj." not in key:
            out[key] = value
    for old, new in swaps:
        out = {
            key.replace(old, new)
            if old != "positional_" or key.endswith(old)
            else key: v
            for key, v in out.items()
        }
    return {k: v for k, v in out.items() if not k.endswith("position_ids")}


@pytest.fixture(scope="module")
def hps(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny CLIP with ViT-H's activation, and the same as HPS v2 publishes it."""
    folder = write_clip(tmp_path_factory.mktemp("hps"), seed=3, act="gelu")
    path = folder / "HPS_v2.1_compressed.pt"
    torch.save({"epoch": 3, "state_dict": to_open_clip(folder)}, path)
    return folder, path


def test_open_clip_names_are_undone_exactly(hps: tuple[Path, Path]) -> None:
    """Every tensor comes back, none is left over."""
    folder, _ = hps
    state = transformers.CLIPModel.from_pretrained(folder).state_dict()
    found = to_transformers(to_open_clip(folder), "x")
    wanted = {k: v for k, v in state.items() if not k.endswith("position_ids")}
    assert set(found) == set(wanted)
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


def test_hpsv2_equals_transformers_on_padded_pictures(hps: tuple[Path, Path]) -> None:
    """Sizes are read from the file; the picture is seen whole, black beside it."""
    folder, path = hps
    pixels = hpsv2.padded(PICTURES, SIZE_PX)
    scores = hpsv2.SCORER.load(weights=path).score(PICTURES, PROMPTS)
    assert scores == pytest.approx(logits(folder, pixels), abs=1e-4)


def test_hpsv2_pads_the_short_side_with_black() -> None:
    """(64, 32) becomes 32 x 16 with 8 rows above and below."""
    white = Image.new("RGB", (64, 32), (255, 255, 255))
    (pixels,) = hpsv2.padded([white], 32)
    black = -0.48145466 / 0.26862954
    assert pixels.shape == (3, 32, 32)
    assert pixels[0, 7].tolist() == pytest.approx([black] * 32)
    assert pixels[0, 8].tolist() == pytest.approx([(1 - 0.48145466) / 0.26862954] * 32)
    assert pixels[0, 24].tolist() == pytest.approx([black] * 32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {**s, "score_head.weight": torch.ones(1)}, "holds 'score_head"),
        (lambda s: {k: v for k, v in s.items() if "ln_final" not in k}, "missing"),
        (lambda s: {"visual.proj": s["visual.proj"]}, "not a whole CLIP"),
    ],
    ids=["more", "less", "other"],
)
def test_file_that_is_no_hps_is_refused(
    change: object, message: str, hps: tuple[Path, Path], tmp_path: Path
) -> None:
    """What is wrong with it is said."""
    state = torch.load(hps[1], weights_only=True)["state_dict"]
    path = hps[0] / "other.pt"
    torch.save(change(state), path)  # type: ignore[operator]
    with pytest.raises(ScorerError, match=message):
        hpsv2.SCORER.load(weights=path)


def write_head(path: Path, widths: list[int], **extra: object) -> dict[str, object]:
    """A head in LAION's layout: one layer is v1, more are v2."""
    torch.manual_seed(5)
    numbers = [0, 2, 4, 6, 7]
    state: dict[str, object] = {}
    for i, (n_in, n_out) in enumerate(pairwise(widths)):
        name = "" if len(widths) == 2 else f"layers.{numbers[i]}."
        state[f"{name}weight"] = torch.randn(n_out, n_in) * 0.3
        state[f"{name}bias"] = torch.randn(n_out)
    torch.save({**state, **extra}, path)
    return state


@pytest.mark.parametrize(
    ("name", "widths", "has_relu"),
    [
        ("sa_0_4_vit_l_14_linear.pth", [16, 1], False),
        ("sac+logos+ava1-l14-linearMSE.pth", [16, 24, 12, 8, 4, 1], False),
        ("ava+logos-l14-reluMSE.pth", [16, 24, 12, 8, 4, 1], True),
        ("chadscorer.pth", [16, 24, 12, 8, 4, 1], False),
    ],
    ids=["v1", "v2", "v2 relu", "chad"],
)
def test_head_equals_a_float64_reference(
    name: str, widths: list[int], has_relu: bool, clip: Path, tmp_path: Path
) -> None:
    """On the unit-length picture features of transformers' own CLIP."""
    state = write_head(tmp_path / name, widths)
    model = transformers.CLIPModel.from_pretrained(clip).eval().double()
    with torch.inference_mode():
        pixels = centre(PICTURES[:2], SIZE_PX).double()
        values = model.visual_projection(model.vision_model(pixel_values=pixels)[1])
        values = values / values.norm(dim=1, keepdim=True)
        for i, key in enumerate(k for k in state if k.endswith("weight")):
            values = values.relu() if i and has_relu else values
            bias = state[key.replace("weight", "bias")]
            values = values @ state[key].double().T + bias.double()  # type: ignore[attr-defined]
    loaded = laion_aesthetic.SCORER.load(
        weights=tmp_path / name, options={"clip": str(clip)}
    )
    scores = loaded.score(PICTURES[:2], ["", "ignored"])
    assert scores == pytest.approx(values[:, 0].tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("widths", "extra", "message"),
    [
        ([8, 1], {}, "reads 8 features, but the CLIP in .* gives 16"),
        ([16, 3], {}, "do not follow on each other"),
        ([16, 1], {"more": torch.ones(1)}, "no head that is known here"),
    ],
    ids=["other clip", "no score", "more"],
)
def test_head_that_does_not_fit_is_refused(
    widths: list[int],
    extra: dict[str, object],
    message: str,
    clip: Path,
    tmp_path: Path,
) -> None:
    """Before a picture is rendered."""
    write_head(tmp_path / "head.pth", widths, **extra)
    with pytest.raises(ScorerError, match=message):
        laion_aesthetic.SCORER.load(
            weights=tmp_path / "head.pth", options={"clip": str(clip)}
        )


def test_head_says_what_it_needs(home: Path, tmp_path: Path) -> None:
    """A head, then a CLIP."""
    scorer = laion_aesthetic.SCORER
    assert "needs a head file" in (scorer.unavailable_reason() or "")
    gone = tmp_path / "gone.pth"
    assert "does not exist" in (scorer.unavailable_reason(weights=gone) or "")
    write_head(tmp_path / "head.pth", [16, 1])
    reason = scorer.unavailable_reason(weights=tmp_path / "head.pth")
    assert "needs CLIP ViT-L/14" in (reason or "")
