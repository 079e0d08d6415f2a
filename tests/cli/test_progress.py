"""The display: a bar on terminals, few lines elsewhere, honest figures."""

from __future__ import annotations

import io

import pytest

from lib_merge.cli._common import parse_size
from lib_merge.cli._progress import TerminalProgress, format_amount, format_seconds
from lib_merge.errors import InputError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bar_is_redrawn_on_one_line_when_on_a_terminal():
    stream = Terminal()
    progress = TerminalProgress(stream)
    progress.start("Merging", 4_000_000_000)
    progress.advance(2_000_000_000)
    progress.advance(2_000_000_000)
    progress.close()
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert text.count("\r") >= 2
    assert "100%" in text
    assert "4.00 GB of 4.00 GB" in text
    assert "GB/s" in text


def test_lines_are_few_when_not_on_a_terminal():
    stream = io.StringIO()
    progress = TerminalProgress(stream)
    progress.start("Merging", 1000)
    for _ in range(1000):
        progress.advance(1)
    lines = stream.getvalue().splitlines()
    assert 2 <= len(lines) <= 3
    assert "\r" not in stream.getvalue()
    assert lines[-1].startswith("Merging: 100%")


@pytest.mark.parametrize(
    ("amount", "unit", "text"),
    [
        (12, "B", "12 B"),
        (1500, "B", "1.50 kB"),
        (2.1e9, "B", "2.10 GB"),
        (7, "images", "7 images"),
    ],
    ids=["bytes", "kilo", "giga", "images"],
)
def test_amounts_read_well_when(amount, unit, text):
    assert format_amount(amount, unit) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(7.2, "0:07"), (75, "1:15"), (3723, "1:02:03")], ids=str
)
def test_times_read_well_when(seconds, text):
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("2GB", 2 << 30),
        ("512MB", 512 << 20),
        ("64MiB", 64 << 20),
        ("1.5g", 3 << 29),
        ("1000", 1000),
        (" 8 kb ", 8 << 10),
    ],
    ids=str,
)
def test_parse_size_reads(text, n_bytes):
    assert parse_size(text) == n_bytes


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "2 apples", "0", "1e3"], ids=repr)
def test_parse_size_refuses(text):
    with pytest.raises(InputError, match="is no size"):
        parse_size(text)
