"""The report's file: small pictures, a budget, every part, nothing that is not text."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from lib_merge.autombw._album import THUMB_PX, Album
from lib_merge.autombw._report_search import infotext_of
from lib_merge.autombw._svg import learning_curve, round_ticks
from lib_merge.autombw.infotext import parse_infotext
from lib_merge.autombw.leaderboard import CurvePoint
from lib_merge.autombw.payloads import Payload, payload_from_txt2img
from lib_merge.autombw.records import ImageScore, load_record, save_record
from lib_merge.autombw.report import write_report
from lib_merge.autombw.runner import StudyRunner
from lib_merge.autombw.study import Study


def picture(folder: Path, name: str, size: int) -> ImageScore:
    """A noisy picture on disk, which no format makes small."""
    noise = Image.effect_noise((size, size), 90).convert("RGB")
    noise.save(folder / name)
    return ImageScore(name, "cat", 1, "a <cat>", {"s": 0.0}, 0.5)


def test_large_pictures_go_in_small(tmp_path: Path) -> None:
    text = Album().shots(tmp_path, [picture(tmp_path, "big.png", 900)])
    data = re.search(r"data:image/jpeg;base64,([^\"]+)", text)
    assert data is not None
    (tmp_path / "small.jpg").write_bytes(base64.b64decode(data[1]))
    with Image.open(tmp_path / "small.jpg") as shown:
        assert max(shown.size) == THUMB_PX
    assert "a &lt;cat&gt;" in text


def test_pictures_beyond_the_budget_are_named_instead(tmp_path: Path) -> None:
    album = Album(budget_bytes=80_000)
    images = [picture(tmp_path, f"{i}.png", 300) for i in range(6)]
    text = album.shots(tmp_path, images)
    assert 0 < text.count("<img") < 6
    assert album.n_left_out == 6 - text.count("<img")
    assert "left out, so that the file stays small" in text


def test_a_picture_that_was_deleted_keeps_its_score(tmp_path: Path) -> None:
    image = ImageScore("gone.png", "cat", 1, "a cat", {"s": 0.0}, 0.25)
    assert "<b>0.250</b> a cat · seed 1 (picture deleted)" in Album().shots(
        tmp_path, [image]
    )


def test_report_has_every_part_of_a_finished_study(
    make_study: Callable[..., Study], run: Callable[[Study], StudyRunner]
) -> None:
    study = make_study(n_trials=12)
    run(study)
    text = study.report_path.read_text(encoding="utf-8")
    parts = ("held-out", "gap", "curve", "weights", "importance", "map", "parallel")
    for part in (*parts, "leaders", "settings", "recipe"):
        assert f'<h2 id="{part}">' in text
    assert "Payload overfit: gain over A by prompt" in text
    assert "prefers-color-scheme:dark" in text
    assert "http" not in text
    assert len(text) < 2_000_000


def test_report_shows_rungs_diversity_and_estimates_when_there_are_some(
    make_study: Callable[..., Study], run: Callable[[Study], StudyRunner]
) -> None:
    study = make_study(n_trials=8)
    run(study)
    for number in range(8):
        folder = study.trial_dir(number)
        record = load_record(folder)
        assert record is not None
        values = record.to_json() | {"diversity": number / 10}
        values["rungs"] = {"draft": (record.score or 0.0) ** 2}
        if number == 7:
            values["state"] = "pruned"
        save_record(folder, type(record).from_json(values))
    text = write_report(study.folder).read_text(encoding="utf-8")
    assert "Rank correlation with whole pictures 1.00 over 7 trials" in text
    assert "Score against diversity" in text
    assert "Open dots are estimates" in text
    assert "7 of 8 trials scored whole, 1 given up early" in text


def test_generation_data_of_a_payload_reads_back() -> None:
    payload = Payload(
        name="cat",
        prompt="a (cat:1.2), sitting",
        negative_prompt="dog",
        seed=7,
        steps=31,
        cfg_scale=4.5,
        width=640,
        height=512,
        sampler_name="DPM++ 2M",
        scheduler="Karras",
        enable_hr=True,
        denoising_strength=0.55,
        hr_scale=1.5,
        hr_upscaler="Latent",
        hr_second_pass_steps=12,
    )
    found = parse_infotext(infotext_of(payload), "here")
    again, _ = payload_from_txt2img(found, "cat")
    assert again == payload


def test_curve_of_one_trial_is_drawn() -> None:
    points = [CurvePoint(0, "A", 0.5, is_estimate=False, best=None)]
    assert "<circle" in learning_curve(points, [("A", 0.5)])
    assert learning_curve([], []) == "<p>No trial is scored yet.</p>"


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0.0, 1.0, 6), (0.5, 0.5, 1), (-3.0, 17.0, 4)],
    ids=["unit", "point", "odd"],
)
def test_ticks_are_few_and_round(low: float, high: float, ticks: int) -> None:
    found = round_ticks(low, high)
    assert len(found) == ticks
    assert all(low <= tick <= high for tick in found)
