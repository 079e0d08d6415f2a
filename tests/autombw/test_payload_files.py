"""Payloads from every kind of file, from txt2img, drawn from wildcards, and split."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lib_merge.autombw.payload_report import OLD_FIELDS, host_notes
from lib_merge.autombw.payloads import (
    Payload,
    draw_payloads,
    payload_from_txt2img,
    read_payloads,
    read_reported,
    split_payloads,
)
from lib_merge.autombw.settings import StudySettings
from lib_merge.autombw.study import create_study
from lib_merge.core.ports import RenderRequest
from lib_merge.errors import PayloadError
from tests.autombw.test_payloads import FILES, read_payload
from tests.support.fake_study_host import fake_settings

INFOTEXT = """a (red:1.2) cat, "quoted"
second line <lora:x:1>
Negative prompt: blurry, bad
worse
Steps: 30, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 123, \
Size: 640x384, Model hash: abc, Model: mine, VAE hash: 1, VAE: "kl, f8.vae.pt", \
Denoising strength: 0.55, Clip skip: 2, RNG: CPU, Hires prompt: "sharp, \\"fine\\"", \
Hires upscale: 1.5, Hires steps: 12, Hires upscaler: Latent (nearest), Foo: bar, \
Variation seed: 7, Variation seed strength: 0.25, Version: v1.10.1"""


def toml_text(data: dict[str, Any]) -> str:
    """A flat object as TOML."""
    rows = (f"{k} = {json.dumps(v, ensure_ascii=False)}" for k, v in data.items())
    return "\n".join(rows)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("kind", ["yaml", "toml"])
def test_published_payload_reads_the_same_in_every_format(
    kind: str, path: Path, tmp_path: Path
) -> None:
    """The 23 fields, used every one that has an effect, and nothing to report."""
    yaml = pytest.importorskip("yaml")
    if kind == "toml" and sys.version_info < (3, 11):
        pytest.importorskip("tomli")
    data = json.loads(path.read_text())
    text = yaml.safe_dump(data) if kind == "yaml" else toml_text(data)
    (tmp_path / f"{path.stem}.{kind}").write_text(text, encoding="utf-8")
    (payload,), (report,) = read_reported([tmp_path])
    assert payload == read_payload(path)[0]
    assert report.sentences() == ()
    assert set(report.used) == set(data) & set(OLD_FIELDS)
    assert Payload.from_json(payload.to_json(), where="x") == payload
    assert set(payload.to_json()) == {*OLD_FIELDS, "name", "scheduler"}


def test_missing_library_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """msgpack's, and YAML's."""
    for name, text in (("a.msgpack", "x"), ("a.yaml", "prompt: a")):
        (tmp_path / name).write_text(text)
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(PayloadError, match="needs the Python package 'msgpack'"):
            read_payloads([tmp_path / "a.msgpack"])
        with pytest.raises(PayloadError, match="needs the Python package 'yaml'"):
            read_payloads([tmp_path / "a.yaml"])


def test_msgpack_is_read_where_its_library_is(tmp_path: Path) -> None:
    """AutoMBW wrote it by choice."""
    msgpack = pytest.importorskip("msgpack")
    (tmp_path / "a.msgpack").write_bytes(msgpack.packb({"prompt": "a cat", "steps": 3}))
    (payload,) = read_payloads([tmp_path / "a.msgpack"])
    assert (payload.prompt, payload.steps) == ("a cat", 3)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "a: [", "is no YAML"),
        ("a.toml", "= 3", "is no TOML"),
        ("a.json", '[{"prompt": "x"}, 3]', "holds list, not a payload"),
        ("a.txt", "# nothing\n\n", "holds no prompt"),
        ("a.txt", "a cat --size 3", "line 1: --size 3: write it as 768x512"),
        ("a.txt", "a cat --steps many", "line 1: 'steps' must be a whole number"),
        ("a.txt", b"\xff\xfe\x00", "is no UTF-8 text"),
        ("a.png", b"no png", "cannot be read as a picture"),
        ("a.json", '{"prompt": "x", "wildcard_type": "all"}', "use one of: none, ran"),
        ("a.json", '{"prompt": "x", "override_settings": 3}', "must be an object"),
        (
            "a.json",
            '{"prompt": "x", "override_settings": {"a": [1]}}',
            "setting 'a' in 'override_settings' must be a text",
        ),
        (
            "a.json",
            '{"prompt": "x", "styles": "a"}',
            "'styles' must be a list of texts",
        ),
    ],
)
def test_damaged_file_is_named(
    name: str, text: str | bytes, message: str, tmp_path: Path
) -> None:
    """With what is wrong and where."""
    data = text if isinstance(text, bytes) else text.encode()
    (tmp_path / name).write_bytes(data)
    with pytest.raises(PayloadError, match=message):
        read_payloads([tmp_path / name])


def test_json_may_hold_a_list(tmp_path: Path) -> None:
    """Each payload is named by its place."""
    path = tmp_path / "many.json"
    path.write_text(json.dumps([{"prompt": f"p{i}"} for i in range(10)]))
    payloads = read_payloads([path])
    assert [p.name for p in payloads[:2]] == ["many-01", "many-02"]
    assert payloads[9].prompt == "p9"


def test_text_list_has_prompts_comments_and_settings(tmp_path: Path) -> None:
    """--field value behind a prompt is for it, on a line of its own for those below."""
    path = tmp_path / "list.txt"
    path.write_text(
        "# my prompts\n"
        "a cat\n"
        "--steps 12 --size 768x512 --neg blurry, bad --sampler 'DPM++ 2M'\n"
        "a dog--like cat, 16:9 --seed 5 --cfg 4.5\n"
        "a bird --neg 3 --restore_faces --tiling false --n 2\n"
        "\n",
        encoding="utf-8",
    )
    (cat, dog, bird), reports = read_reported([path])
    assert (cat.name, dog.name, bird.name) == ("list-1", "list-2", "list-3")
    assert (cat.prompt, cat.steps, cat.width) == ("a cat", 20, 512)
    assert (dog.prompt, dog.seed, dog.cfg_scale) == ("a dog--like cat, 16:9", 5, 4.5)
    assert (dog.steps, dog.width, dog.height) == (12, 768, 512)
    assert (dog.negative_prompt, dog.sampler_name) == ("blurry, bad", "DPM++ 2M")
    assert (bird.negative_prompt, bird.restore_faces, bird.n_iter) == ("3", True, 2)
    assert bird.tiling is False
    assert all(report.sentences() == () for report in reports)


def infotext_png(path: Path, text: str = INFOTEXT) -> Path:
    """A picture as a WebUI saves it."""
    info = PngInfo()
    info.add_text("parameters", text)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    return path


def infotext_jpeg(path: Path) -> Path:
    """The same as JPEG: Exif's user comment."""
    image = Image.new("RGB", (8, 8))
    exif = image.getexif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + INFOTEXT.encode("utf-16-be")
    image.save(path, exif=exif)
    return path


@pytest.mark.parametrize("kind", ["png", "jpg", "txt"])
def test_infotext_of_a_picture_is_a_payload(kind: str, tmp_path: Path) -> None:
    """Prompts over lines, quoted values, hires pass, clip skip, VAE, settings."""
    path = tmp_path / f"shot.{kind}"
    if kind == "png":
        infotext_png(path)
    elif kind == "jpg":
        infotext_jpeg(path)
    else:
        path.write_text(INFOTEXT)
    (payload,), (report,) = read_reported([path])
    assert payload == Payload(
        name="shot",
        prompt='a (red:1.2) cat, "quoted"\nsecond line <lora:x:1>',
        negative_prompt="blurry, bad\nworse",
        seed=123,
        steps=30,
        cfg_scale=6.5,
        width=640,
        height=384,
        sampler_name="DPM++ 2M",
        scheduler="Karras",
        enable_hr=True,
        denoising_strength=0.55,
        hr_scale=1.5,
        hr_upscaler="Latent (nearest)",
        hr_second_pass_steps=12,
        hr_prompt='sharp, "fine"',
        clip_skip=2,
        vae="kl, f8.vae.pt",
        override_settings=(("randn_source", "CPU"),),
        subseed=7,
        subseed_strength=0.25,
    )
    unused = dict(report.unused)
    assert unused["Foo"] == ""
    assert unused["Model"] == "a study renders its own merge only"
    assert set(unused) == {"Foo", "Model", "Model hash", "VAE hash", "Version"}


def test_infotext_without_hires_pass_and_with_resize(tmp_path: Path) -> None:
    """A denoising strength alone is img2img's; a resize is a hires pass."""
    plain = "cat\nSteps: 9, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 64x64"
    (payload,) = read_payloads([infotext_png(tmp_path / "a.png", plain)])
    assert (payload.enable_hr, payload.width, payload.prompt) == (False, 64, "cat")
    large = f"{plain}, Hires resize: 96x128, Face restoration: CodeFormer, Tiling: True"
    (payload,) = read_payloads([infotext_png(tmp_path / "b.png", large)])
    assert (payload.enable_hr, payload.hr_resize_x, payload.hr_resize_y) == (
        *(True, 96, 128),
    )
    assert payload.restore_faces
    assert payload.tiling


def test_picture_without_infotext_is_told(tmp_path: Path) -> None:
    """And so is a ComfyUI workflow."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(PayloadError, match="holds no infotext; choose a picture"):
        read_payloads([tmp_path / "a.png"])
    info = PngInfo()
    info.add_text("workflow", "{}")
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png", pnginfo=info)
    with pytest.raises(PayloadError, match="a ComfyUI workflow, which is no payload"):
        read_payloads([tmp_path / "b.png"])
    with pytest.raises(PayloadError, match="holds no infotext of a WebUI"):
        read_payloads([infotext_png(tmp_path / "c.png", "just words")])


def test_txt2img_settings_are_a_payload_and_all_fields_are_accounted_for() -> None:
    """Names as the WebUI's API has them; null means not set."""
    payload, report = payload_from_txt2img(
        {
            "prompt": "a cat",
            "negative_prompt": None,
            "sampler_index": "Euler a",
            "steps": 12,
            "styles": ["film", "soft"],
            "override_settings": {
                "CLIP_stop_at_last_layers": 2,
                "sd_vae": "x.pt",
                "randn_source": "CPU",
                "sd_model_checkpoint": "other",
            },
            "alwayson_scripts": {"ControlNet": {"args": []}},
            "refiner_checkpoint": "",
            "s_churn": 0.5,
            "hr_cfg": 3.5,
        }
    )
    assert payload.sampler_name == "Euler a"
    assert payload.styles == ("film", "soft")
    assert (payload.clip_skip, payload.vae, payload.hr_cfg) == (2, "x.pt", 3.5)
    assert payload.override_settings == (("randn_source", "CPU"),)
    text = "\n".join(report.sentences())
    assert "unknown fields are ignored: s_churn." in text
    assert "alwayson_scripts has no effect: other extensions' scripts" in text
    assert "sd_model_checkpoint has no effect: a study renders its own merge" in text
    assert "scorers do not read the words that styles add" in text
    assert "refiner" not in text
    assert "absent" not in text
    settings = fake_settings(payloads=(payload,))
    text = json.dumps(settings.to_json())
    assert StudySettings.from_json(json.loads(text)) == settings


def test_report_accounts_for_every_field_of_a_file(tmp_path: Path) -> None:
    """Used, unused or absent: none is missing from the report."""
    data = {"prompt": "x", "steps": 3, "freeu": 1, "firstphase_width": 64}
    (tmp_path / "a.json").write_text(json.dumps(data))
    _, (report,) = read_reported([tmp_path / "a.json"])
    assert report.used == ("prompt", "steps")
    assert dict(report.unused).keys() == {"freeu", "firstphase_width"}
    absent = {name for name, _ in report.defaults}
    assert absent == set(OLD_FIELDS) - set(data)


class _Limited:
    """A renderer without a VAE choice."""

    max_batch = 1

    def unsupported(self, request: RenderRequest) -> tuple[str, ...]:
        return ("no VAE can be chosen here.",) if request.vae else ()

    def render(self, requests: object) -> list[Image.Image]:
        raise NotImplementedError


def test_what_a_host_cannot_do_is_said_once_for_all_payloads() -> None:
    """With the payloads' names."""
    payloads = [Payload(n, "x", vae="a.pt" if n != "c" else "") for n in "abc"]
    pairs = [(p.name, p.requests()) for p in payloads]
    assert host_notes(pairs, _Limited()) == ("a, b: no VAE can be chosen here.",)


@pytest.fixture
def wildcards(tmp_path: Path) -> Path:
    """A folder of wildcard files."""
    folder = tmp_path / "wildcards"
    (folder / "animals").mkdir(parents=True)
    (folder / "colours.txt").write_text(
        "# a comment\nred\nblue\n\n{dark|light} green\n"
    )
    (folder / "animals" / "cats.txt").write_text("lynx\n")
    (folder / "animals" / "dogs.txt").write_text("hound\n")
    (folder / "loop.txt").write_text("__loop__\n")
    return folder


def texts(
    prompt: str, folder: Path | None, kind: str = "random", n: int = 200, seed: int = 1
) -> list[str]:
    """Prompts drawn from one payload."""
    payload = Payload("w", prompt, seed=3, n_iter=n, wildcard_type=kind)
    return [p.prompt for p in draw_payloads((payload,), seed, folder)]


def test_wildcards_are_drawn_by_name_folder_and_choice(wildcards: Path) -> None:
    """Every value comes, nested ones too; nothing else does."""
    assert set(texts("__colours__ __animals/cats__", wildcards)) == {
        *("red lynx", "blue lynx", "dark green lynx", "light green lynx"),
    }
    assert set(texts("__animals/*__", wildcards)) == {"lynx", "hound"}
    assert set(texts("{a|{b|c} d|}x", None)) == {"ax", "b dx", "c dx", "x"}
    assert set(texts(r"\{a|b\} snake_case __x", None)) == {"{a|b} snake_case __x"}


def test_weights_make_a_choice_likelier() -> None:
    """{3::a|b}: three times as often."""
    found = texts("{3::a|b}", None, n=2000)
    assert found.count("a") / 2000 == pytest.approx(0.75, abs=0.04)
    assert set(texts("{0::a|b}", None)) == {"b"}


def test_several_of_a_choice_are_joined() -> None:
    """{2$$...}, {1-2$$ and $$...}, none twice."""
    pairs = set(texts("{2$$a|b|c}", None))
    assert pairs == {f"{x}, {y}" for x in "abc" for y in "abc" if x != y}
    joined = set(texts("{1-2$$ and $$a|b}", None))
    assert joined == {"a", "b", "a and b", "b and a"}


def test_combinatorial_gives_every_prompt_once_in_order(wildcards: Path) -> None:
    """No more than n_iter, no more than there are."""
    everything = texts("{a|b} __colours__", wildcards, "combinatorial")
    assert everything == [
        f"{x} {y}" for x in "ab" for y in ("red", "blue", "dark green", "light green")
    ]
    assert texts("{a|b} __colours__", wildcards, "combinatorial", 3) == everything[:3]
    assert texts("{2$$a|b|c}", None, "combinatorial") == ["a, b", "a, c", "b, c"]


def test_jinja2_is_rendered_in_a_sandbox(wildcards: Path) -> None:
    """With dynamicprompts' functions; attributes of Python are out of reach."""
    pytest.importorskip("jinja2")
    template = "{{ choice('a', 'b') }} {{ choice(*wildcard('__animals/*__')) }}"
    assert set(texts(template, wildcards, "jinja2")) == {
        *("a lynx", "a hound", "b lynx", "b hound"),
    }
    loop = "{% for i in range(2) %}x{{ i }} {% endfor %}"
    assert texts(loop, None, "jinja2", 1) == ["x0 x1"]
    for bad in ("{% prompt %}x{% endprompt %}", "{{ ''.__class__.__mro__ }}", "{{ x("):
        with pytest.raises(PayloadError, match="jinja2 template cannot be rendered"):
            texts(bad, None, "jinja2", 1)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (
            "__gone__",
            r"wildcard __gone__ is not there .*known: animals/cats, animals/d",
        ),
        ("__loop__", "lead back to themselves"),
        ("a {b|c", r"bracket in '\{b\|c' is not closed"),
        ("{5$$a|b}", "has 2 choices; 5 to 5 of them cannot be taken"),
        ("{0::a}", "every weight in .* is 0"),
        ("{ | }", "a drawn prompt is empty"),
    ],
)
def test_wildcard_that_cannot_be_drawn_is_told(
    prompt: str, message: str, wildcards: Path
) -> None:
    """Before there is a study."""
    with pytest.raises(PayloadError, match=message):
        texts(prompt, wildcards, n=3)


def test_study_draws_once_records_it_and_repeats_it(tmp_path: Path) -> None:
    """By the study's seed; its own folder of wildcards; n_iter prompts, one seed."""
    (tmp_path / "wildcards").mkdir()
    (tmp_path / "wildcards" / "pet.txt").write_text("cat\ndog\nbird\nfish\n")
    payload = Payload(
        "p", "a __pet__, {x|y}", negative_prompt="{bad|worse}", n_iter=3,
        wildcard_type="random",
    )  # fmt: skip
    plain = Payload("q", "{as it is}")

    def make(name: str, seed: int) -> tuple[Payload, ...]:
        settings = fake_settings(name=name, seed=seed, payloads=(payload, plain))
        return create_study(tmp_path, settings).settings.payloads

    drawn = make("one", 5)
    assert [p.name for p in drawn] == ["p-1", "p-2", "p-3", "q"]
    assert drawn[:3] == make("two", 5)[:3]
    assert [p.prompt for p in drawn] != [p.prompt for p in make("three", 6)]
    assert len({p.seed for p in drawn[:3]}) == 1
    for one in drawn[:3]:
        assert one.n_iter == 1
        assert one.template == payload.prompt
        assert one.negative_template == payload.negative_prompt
        assert one.negative_prompt in ("bad", "worse")
        assert "__" not in one.prompt
        assert draw_payloads((one,), 99, None) == (one,)
    assert drawn[3].prompt == "{as it is}"


def test_kinds_that_cannot_be_done_are_reported(tmp_path: Path) -> None:
    """lucky is random here; wildcards without a type stay, and are said."""
    path = tmp_path / "a.json"
    path.write_text('{"prompt": "a __pet__", "wildcard_type": "lucky"}')
    assert any("draws wildcards at random here" in n for n in read_payload(path)[1])
    assert set(texts("{a|b}", None, "lucky")) == {"a", "b"}
    path.write_text('{"prompt": "a {x|y}"}')
    assert any("wildcard_type is none" in note for note in read_payload(path)[1])


def test_split_keeps_a_share_back_by_name() -> None:
    """The same whatever the order; never all, never none."""
    payloads = [Payload(f"p{i}", "x") for i in range(10)]
    training, held_out = split_payloads(payloads, 0.3, 1)
    assert (len(training), len(held_out)) == (7, 3)
    assert sorted((*training, *held_out), key=lambda p: p.name) == payloads
    turned = split_payloads(payloads[::-1], 0.3, 1)
    assert set(turned[1]) == set(held_out)
    assert split_payloads(payloads, 0.3, 2)[1] != held_out
    assert [len(part) for part in split_payloads(payloads[:2], 0.01, 1)] == [1, 1]
    assert [len(part) for part in split_payloads(payloads[:3], 0.99, 1)] == [1, 2]
    with pytest.raises(PayloadError, match="A share of 1 cannot be held out"):
        split_payloads(payloads, 1.0, 1)
    with pytest.raises(PayloadError, match="single payload cannot be split"):
        split_payloads(payloads[:1], 0.5, 1)


def test_payload_with_every_field_round_trips() -> None:
    """Through its own JSON, and only what is said is written."""
    payload = Payload(
        "p", "x", clip_skip=2, vae="v", styles=("a",), subseed=4, subseed_strength=0.5,
        override_settings=(("randn_source", "CPU"), ("eta", 0.5)), hr_prompt="h",
        hr_negative_prompt="n", hr_sampler_name="Euler", hr_scheduler="Karras",
        hr_cfg=2.0, template="t", negative_template="u", wildcard_type="random",
    )  # fmt: skip
    data = json.loads(json.dumps(payload.to_json()))
    assert data["override_settings"] == {"randn_source": "CPU", "eta": 0.5}
    assert Payload.from_json(data, where="x") == payload
    request = payload.requests()[0]
    assert request.override_settings == payload.override_settings
    assert request.hr_prompt == "h"
    assert replace(request, seed=0) == replace(payload.requests(5)[0], seed=0)
