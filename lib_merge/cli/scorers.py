"""`scorers`: who can judge pictures here, and what the others lack."""

from __future__ import annotations

import argparse
import json
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lib_merge.core.ports import Scorer

NAME = "scorers"
HELP = "list the scorers that can judge a study's pictures"

_WIDTH = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("id", nargs="?", help="show one scorer only")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print every scorer, or one."""
    from lib_merge.autombw.scorers import scorers

    found = [scorers().get(args.id)] if args.id else list(scorers())
    if args.json:
        print(json.dumps([_as_json(scorer) for scorer in found], indent=2))
        return 0
    for number, scorer in enumerate(found):
        if number:
            print()
        _show(scorer)
    return 0


def _show(scorer: Scorer) -> None:
    reason = scorer.unavailable_reason()
    low, high = scorer.range
    card = scorer.card
    rows = [
        ("", f"{scorer.id}  ({scorer.label})"),
        ("here", f"no: {reason}" if reason else "yes"),
        ("range", f"about {low:g} to {high:g}, higher is better"),
        ("learnt", card.training),
        ("licence", card.licence),
        ("weights", card.weights),
        ("from", card.url),
    ]
    for option in card.options:
        what = "needed" if option.is_required else f"default: {option.default or '-'}"
        default = " ".join(what.split())
        rows.append(("option", f"{option.name}: {option.help} ({default})"))
    for name, text in rows:
        if text:
            _print(name, text)


def _print(name: str, text: str) -> None:
    head = f"  {name:<8}" if name else ""
    print(
        textwrap.fill(
            text,
            _WIDTH,
            initial_indent=head,
            subsequent_indent=" " * len(head),
            break_long_words=False,
            break_on_hyphens=False,
        )
    )


def _as_json(scorer: Scorer) -> dict[str, Any]:
    return {
        "id": scorer.id,
        "label": scorer.label,
        "range": list(scorer.range),
        "unavailable_reason": scorer.unavailable_reason(),
        **asdict(scorer.card),
    }
