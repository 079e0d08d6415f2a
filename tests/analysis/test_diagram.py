"""Diagrams: the published counts come out, and every block is drawn once."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from lib_merge.analysis.anatomy import (
    ATTENTION,
    DOWN,
    LOOSE,
    RESNET,
    UP,
    Anatomy,
    Part,
    anatomy_of_arch,
    anatomy_of_file,
    count,
    drawable,
)
from lib_merge.analysis.diagram import diagram
from lib_merge.analysis.drawing import Box, Line, Words, to_svg
from lib_merge.cli import main
from lib_merge.demo import MODEL_A
from lib_merge.errors import InputError

GOLDEN = Path(__file__).resolve().parent.parent / "golden"

COUNTS = {
    "sd1": (25, 686, 859_520_964),
    "sd2": (25, 686, 865_910_724),
    "sdxl": (19, 1680, 2_567_463_684),
    # One tensor of the published 492 is `sigmas`, a constant.
    "sd3_medium": (24, 491, 2_028_328_000),
    "flux": (57, 780, 11_901_408_320),
    "auraflow": (36, 331, 6_833_439_744),
}
"""Numbered blocks, tensors and parameters of what denoises, as published."""

BILLIONS = {"sd35_large": (38, 8.06), "hunyuan_dit": (40, 1.52)}
"""Those of which single-file counts are not published: blocks, parameters."""


def part(anatomy: Anatomy, block: str) -> Part:
    return next(p for p in anatomy.parts if p.block.id == block)


@pytest.mark.parametrize("arch_id", COUNTS)
def test_published_counts_come_out(arch_id: str) -> None:
    found = anatomy_of_arch(arch_id)
    assert (found.n_numbered, found.n_tensors, found.n_params) == COUNTS[arch_id]


@pytest.mark.parametrize("arch_id", BILLIONS)
def test_published_sizes_come_out(arch_id: str) -> None:
    found = anatomy_of_arch(arch_id)
    assert (found.n_numbered, round(found.n_params / 1e9, 2)) == BILLIONS[arch_id]


@pytest.mark.parametrize(
    ("block", "n_tensors", "kind", "channels", "side"),
    [
        ("IN00", 2, RESNET, 320, 64),
        ("IN01", 36, ATTENTION, 320, 64),
        ("IN03", 2, DOWN, 320, 32),
        ("IN04", 38, ATTENTION, 640, 32),
        ("IN11", 10, RESNET, 1280, 8),
        ("M00", 46, ATTENTION, 1280, 8),
        ("OUT02", 14, UP, 1280, 16),
        ("OUT05", 40, ATTENTION, 1280, 32),
        ("OUT11", 38, ATTENTION, 320, 64),
        ("OUT", 4, LOOSE, 0, 0),
        ("TIME_EMBED", 4, LOOSE, 0, 0),
    ],
)
def test_sd1_blocks_are_what_the_block_map_says(
    block: str, n_tensors: int, kind: str, channels: int, side: int
) -> None:
    found = part(anatomy_of_arch("sd1"), block)
    assert found.n_tensors == n_tensors
    assert found.kind == kind
    assert (found.n_channels, found.side) == (channels, side)


def test_sdxl_says_how_deep_its_transformers_are() -> None:
    found = anatomy_of_arch("sdxl")
    assert part(found, "IN04").words == "resnet, 2-layer transformer"
    assert part(found, "OUT02").words == "resnet, 10-layer transformer, up"
    assert part(found, "M00").words == "2 resnets, 10-layer transformer"
    assert part(found, "LABEL_EMB").kind == LOOSE


def test_a_checkpoint_is_drawn_with_its_own_counts() -> None:
    found = anatomy_of_file(MODEL_A)
    assert found.n_numbered == 25
    assert found.n_tensors == 686
    assert found.n_params < COUNTS["sd1"][2]


@pytest.mark.parametrize("arch_id", drawable())
def test_every_block_is_drawn_once_with_its_id(arch_id: str) -> None:
    anatomy = anatomy_of_arch(arch_id)
    drawing = diagram(anatomy)
    boxes = [s for s in drawing.shapes if isinstance(s, Box) and s.model is not None]
    assert sorted(box.model for box in boxes) == list(range(len(anatomy.parts)))
    words = [s.text for s in drawing.shapes if isinstance(s, Words)]
    assert all(words.count(p.block.id) == 1 for p in anatomy.parts)


@pytest.mark.parametrize("arch_id", drawable())
def test_no_box_lies_on_another_or_off_the_paper(arch_id: str) -> None:
    drawing = diagram(anatomy_of_arch(arch_id))
    boxes = [s for s in drawing.shapes if isinstance(s, Box)]
    for i, one in enumerate(boxes):
        assert one.x + one.width <= drawing.width
        assert one.y + one.height <= drawing.height
        for two in boxes[i + 1 :]:
            is_beside = one.x + one.width <= two.x or two.x + two.width <= one.x
            is_above = one.y + one.height <= two.y or two.y + two.height <= one.y
            assert is_beside or is_above, (one.title, two.title)


def test_skip_connections_join_blocks_of_one_resolution() -> None:
    anatomy = anatomy_of_arch("sd1")
    drawing = diagram(anatomy)
    boxes = [s for s in drawing.shapes if isinstance(s, Box) and s.model is not None]
    lines = [s for s in drawing.shapes if isinstance(s, Line)]
    assert len(lines) == 12
    for line in lines:
        y = line.points[0][1]
        pair = [b for b in boxes if b.y < y < b.y + b.height]
        left, right = sorted(
            anatomy.parts[b.model].block.id for b in pair if b.model is not None
        )
        assert int(left[2:]) + int(right[3:]) == 11


@pytest.mark.parametrize("arch_id", drawable())
def test_svg_is_well_formed(arch_id: str) -> None:
    root = ET.fromstring(to_svg(diagram(anatomy_of_arch(arch_id))))
    assert root.tag.endswith("svg")


@pytest.mark.parametrize("arch_id", drawable())
def test_committed_picture_is_what_the_block_map_draws(arch_id: str) -> None:
    committed = (GOLDEN / "diagrams" / f"{arch_id}.svg").read_text(encoding="utf-8")
    drawn = to_svg(diagram(anatomy_of_arch(arch_id)))
    assert committed == drawn, "run: python -m lib_merge diagram --all --out FOLDER"


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (11_840, "11.8 k"), (859_520_964, "860 M")],
)
def test_counts_are_short(number: int, text: str) -> None:
    assert count(number) == text


def test_command_writes_both_forms_into_a_folder(tmp_path: Path, capsys) -> None:
    assert main(["diagram", "sd2", "--out", str(tmp_path / "d")]) == 0
    assert sorted(p.name for p in (tmp_path / "d").iterdir()) == ["sd2.png", "sd2.svg"]
    assert re.search(r"sd2 .* 25 blocks .* 865,910,724 parameters", _out(capsys))


def test_command_lists_what_can_be_drawn(capsys) -> None:
    assert main(["diagram"]) == 0
    assert [line.split()[0] for line in _out(capsys).splitlines()] == list(drawable())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sd1", "sdxl", "--out", "x.svg"], "cannot go into the one file"),
        (["sd1", "--out", "x.pdf"], "x.pdf"),
        (["none.safetensors"], "none.safetensors"),
    ],
    ids=["two_for_one", "suffix", "missing"],
)
def test_command_says_what_is_wrong(arguments: list[str], said: str, capsys) -> None:
    assert main(["diagram", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_architecture_without_a_key_list_asks_for_a_file(monkeypatch) -> None:
    monkeypatch.setattr("lib_merge.analysis.anatomy.expected_layout", lambda id_: None)
    with pytest.raises(InputError, match="give a file of it"):
        anatomy_of_arch("sd1")


def _out(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out
