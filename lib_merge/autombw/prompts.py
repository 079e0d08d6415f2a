"""Prompts as a scorer should read them: without emphasis syntax and LoRA tags."""

from __future__ import annotations

import re

_TAG = re.compile(r"<[a-zA-Z_]+:[^<>]*>")
_WEIGHTED = re.compile(r"\(([^()\[\]]*?):\s*([+-]?\d*\.?\d+)\s*\)")
_SCHEDULED = re.compile(r"\[([^\[\]()]*?):([^\[\]()]*?):\s*\d*\.?\d+\s*\]")
_REMOVED = re.compile(r"\[([^\[\]()]*?):?:\s*\d*\.?\d+\s*\]")
_CHOICE = re.compile(r"\[([^\[\]()|]*)\|[^\[\]()]*\]")
_PLAIN = re.compile(r"\(([^()\[\]]*)\)|\[([^()\[\]:|]*)\]")
_BREAK = re.compile(r"\bBREAK\b")
_AND = re.compile(r"\bAND\b")
_PART_WEIGHT = re.compile(r"\s*:\s*([-+]?(?:\d+\.?\d*|\.\d+))\s*$")
_ESCAPED = {
    "\\\\": "\ue004",
    r"\(": "\ue000",
    r"\)": "\ue001",
    r"\[": "\ue002",
    r"\]": "\ue003",
    "\\": "",
}
"""What a backslash and a letter stand for; a lone backslash is dropped by the WebUI."""


def clean_prompt(prompt: str) -> str:
    """The words of a WebUI prompt.

    `(word:1.2)`, `((word))` and `[word]` become `word`; words of weight 0 are left out,
    because the picture is not meant to show them; `<lora:...>` tags, BREAK and AND go,
    with AND its weights too, and parts of negative weight; of `[from:to:when]` the
    later words stay, of `[a|b]` the first; an escaped bracket is a bracket. When
    nothing at all would be left, words of weight 0 stay.
    """
    cleaned = _clean(prompt, keep_silent=False)
    return cleaned or _clean(prompt, keep_silent=True)


def _clean(prompt: str, *, keep_silent: bool) -> str:
    text = _TAG.sub(" ", prompt)
    for escape, stand_in in _ESCAPED.items():
        text = text.replace(escape, stand_in)

    def weighted(found: re.Match[str]) -> str:
        is_heard = keep_silent or float(found[2]) > 0
        return found[1] if is_heard else " "

    before = ""
    while before != text:
        before = text
        text = _WEIGHTED.sub(weighted, text)
        text = _SCHEDULED.sub(lambda found: found[2].strip() or found[1], text)
        text = _REMOVED.sub(r"\1", text)
        text = _CHOICE.sub(r"\1", text)
        if text == before:  # plain brackets last: they may hold what has a weight
            text = _PLAIN.sub(r"\1\2", text)
    text = _BREAK.sub(",", re.sub(r"[()\[\]]", " ", text))
    text = _joined(text, keep_silent=keep_silent)
    for escape, stand_in in _ESCAPED.items():
        if stand_in:
            text = text.replace(stand_in, escape[1])
    words = (re.sub(r"\s+", " ", part).strip() for part in text.split(","))
    return ", ".join(word for word in words if word)


def _joined(text: str, *, keep_silent: bool) -> str:
    """Parts that AND connects, without their weights."""
    parts = _AND.split(text)
    if len(parts) == 1:
        return text
    heard = []
    for part in parts:
        weight = _PART_WEIGHT.search(part)
        if weight is None or keep_silent or float(weight[1]) > 0:
            heard.append(part[: weight.start()] if weight else part)
    return ",".join(heard)
