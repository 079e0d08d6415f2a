"""Payload files are read as they are, and what is wrong is said once and clearly."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from lib_merge.autombw.payloads import Payload, read_payloads, read_reported
from lib_merge.autombw.prompts import clean_prompt
from lib_merge.errors import PayloadError

ROOT = Path(__file__).parents[2]
COPIES = ROOT / "tests" / "data" / "payloads"
SHARED = ROOT.parent / "shared" / "data" / "autombw" / "payloads"


def read_payload(path: Path) -> tuple[Payload, tuple[str, ...]]:
    """A file's first payload, and what is said on all in it."""
    payloads, reports = read_reported([path])
    return payloads[0], tuple(line for one in reports for line in one.sentences())


FILES = sorted((SHARED if SHARED.is_dir() else COPIES).glob("*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_real_payload_round_trips_when_read(path: Path) -> None:
    """Every field of a published payload comes back with its value and type."""
    data = json.loads(path.read_text())
    payload, notes = read_payload(path)
    for name, value in data.items():
        assert getattr(payload, name) == value, name
    assert payload.name == path.stem
    assert notes == ()
    assert Payload.from_json(payload.to_json(), where="x") == payload


def test_copies_in_the_repository_are_three() -> None:
    """The copies are there for machines without the shared data."""
    assert len(list(COPIES.glob("*.json"))) == 3


def test_batch_counts_up_from_the_payloads_seed() -> None:
    """batch_size * n_iter pictures with the seeds seed + i, as in AutoMBW."""
    payload, _ = read_payload(COPIES / "test-9img.json")
    requests = payload.requests()
    assert [r.seed for r in requests] == [3425689549 + i for i in range(9)]
    assert {r.width for r in requests} == {1024}
    assert requests[0].enable_hr is True
    assert payload.requests(100)[0].seed == 3425689649


def test_seeds_wrap_at_32_bits() -> None:
    """No seed leaves the range that hosts accept."""
    payload = Payload(name="x", prompt="x", seed=2**32 - 1, n_iter=2)
    assert [r.seed for r in payload.requests()] == [2**32 - 1, 0]


def test_negative_seed_is_fixed_once_for_a_study() -> None:
    """-1 means any, not another one each trial."""
    payload = Payload(name="x", prompt="x", seed=-1)
    fixed = payload.with_fixed_seed(5)
    assert fixed.seed >= 0
    assert fixed == payload.with_fixed_seed(5)
    assert fixed.seed != payload.with_fixed_seed(6).seed
    assert fixed.seed != Payload(name="y", prompt="x").with_fixed_seed(5).seed
    assert fixed.with_fixed_seed(99) == fixed


def write(folder: Path, **fields: Any) -> Path:
    """A payload file."""
    path = folder / "mine.json"
    path.write_text(json.dumps({"prompt": "a cat", **fields}))
    return path


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("steps", "20", "a whole number"),
        ("steps", 20.5, "a whole number"),
        ("cfg_scale", True, "a number"),
        ("cfg_scale", None, "a number"),
        ("enable_hr", 1, "true or false"),
        ("prompt", ["a"], "a text"),
        ("seed", "random", "a whole number"),
    ],
)
def test_field_of_the_wrong_type_names_file_and_field(
    name: str, value: object, kind: str, tmp_path: Path
) -> None:
    """One error with file, field, what it must be and what it is."""
    path = write(tmp_path, **{name: value})
    with pytest.raises(PayloadError, match=f"mine.json: '{name}' must be {kind}, not"):
        read_payloads([path])


@pytest.mark.parametrize("name", ["steps", "width", "batch_size", "n_iter"])
def test_field_below_one_is_refused(name: str, tmp_path: Path) -> None:
    """Nothing can be rendered with it."""
    with pytest.raises(PayloadError, match=f"'{name}' is 0; it must be at least 1"):
        read_payloads([write(tmp_path, **{name: 0})])


def test_whole_number_written_as_a_float_is_read(tmp_path: Path) -> None:
    """Sliders write 20.0."""
    (payload,) = read_payloads([write(tmp_path, steps=20.0, cfg_scale=7)])
    assert (payload.steps, payload.cfg_scale) == (20, 7.0)
    assert isinstance(payload.steps, int)


def test_unknown_and_absent_fields_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is dropped or invented in silence."""
    path = write(tmp_path, freeu=2, wildcard_type="lucky", firstphase_width=64)
    with caplog.at_level(logging.WARNING):
        read_payloads([path])
    assert "unknown fields are ignored: freeu" in caplog.text
    assert "absent fields take defaults: " in caplog.text
    assert "steps = 20" in caplog.text
    assert "wildcard_type lucky would fetch prompts" in caplog.text
    assert "firstphase_width has no effect: WebUIs have had" in caplog.text
    _, notes = read_payload(write(tmp_path))
    assert notes[0].count(" = ") == 22


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("[1]", "holds list, not a payload"),
        ("{}", "has no 'prompt'"),
        ('{"prompt": "  "}', "has no 'prompt'"),
        ('{"prompt": "x", "cfg_scale": 1e999}', "'cfg_scale' must be a number"),
    ],
)
def test_file_that_is_no_payload_is_refused(
    content: str, message: str, tmp_path: Path
) -> None:
    """One clear error."""
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(PayloadError, match=message):
        read_payloads([path])


def test_missing_file_and_empty_folder_are_refused(tmp_path: Path) -> None:
    """Before any work."""
    with pytest.raises(PayloadError, match=r"gone\.json cannot be read"):
        read_payloads([tmp_path / "gone.json"])
    with pytest.raises(PayloadError, match="holds no payload file"):
        read_payloads([tmp_path])
    with pytest.raises(PayloadError, match="No payload file was given"):
        read_payloads([])
    with pytest.raises(PayloadError, match=r"is no payload file; use one of: \.json"):
        read_payloads([tmp_path / "x.safetensors"])


def test_two_payloads_of_one_name_are_refused(tmp_path: Path) -> None:
    """Pictures and scores are told apart by the name."""
    (tmp_path / "other").mkdir()
    paths = [write(tmp_path), write(tmp_path / "other")]
    with pytest.raises(PayloadError, match="Two payload files are named 'mine'"):
        read_payloads(paths)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a cat", "a cat"),
        ("(cat:1.2), ((dog)), [bird]", "cat, dog, bird"),
        ("((a:1.1) b:1.2), c", "a b, c"),
        ("(boy:0), [[braid]], [astolfo]", "braid, astolfo"),
        ("(aodai:0.98), [[[[vietnam,rice paddy]]]]", "aodai, vietnam, rice paddy"),
        ("cat <lora:fluffy:0.8> <hypernet:x:1>", "cat"),
        ("[cat:dog:0.5], [red::8], [:blue:3]", "dog, red, blue"),
        ("[a|b|c] x", "a x"),
        ("one BREAK two AND three", "one, two, three"),
        (r"smile \(face\)", "smile (face)"),
        ("(a:0), (b:0)", "a, b"),
        ("ratio 16:9, (unclosed", "ratio 16:9, unclosed"),
        ("a cat:1.2 AND a dog :0.5 AND rain:-1", "a cat, a dog"),
        ("a AND_b BREAKFAST", "a AND_b BREAKFAST"),
        ("(a [b:c:0.5]:1.3) [[x|y]:z:0.5]", "a c z"),
        ("[(a:1.2):b:0.5], [the [old|new]:0.3]", "b, the old"),
        (r"(c\:1.2), \[x\] [y], a\\b, d\e", "c, [x] y, a\\b, de"),
        ("<lora:a b-1:0.8:lbw=XYZ> cat <lyco:x:1><hypernet:h:0.5>", "cat"),
        ("(word :  1.2 ), (a:b), [x:y]", "word, a:b, x:y"),
        (":), (smile:1.2)", ":, smile"),
        ("", ""),
    ],
)
def test_prompt_without_syntax(prompt: str, words: str) -> None:
    """What a scorer reads."""
    assert clean_prompt(prompt) == words
