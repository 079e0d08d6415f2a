"""The scorers of a study as the page names them, with weights, files and options."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from lib_merge.autombw.scoring import Judge
from lib_merge.errors import InputError, RecipeError
from lib_merge.ui import markup

_JUDGE = re.compile(r"^(?P<id>[A-Za-z0-9_]+)\s*:\s*(?P<rest>.+)$")

JUDGE_HELP = "pickscore: weight=0.5, file=/path/to/weights"

OFF = " (not available)"
"""Behind the label of a scorer that cannot be used."""


def read_judges(scorers: Sequence[str], lines: str) -> tuple[Judge, ...]:
    """Scorers with their weights, files and options.

    Args:
        scorers: Ids.
        lines: "pickscore: weight=0.5, file=/path" a line; whatever else stands there
            is an option of the scorer.

    Raises:
        InputError: No scorer at all.
        RecipeError: A line cannot be read, or is of a scorer that is not chosen.
    """
    if not scorers:
        raise InputError("No scorer is chosen; choose one that is available.")
    judges = {scorer: Judge(scorer) for scorer in scorers}
    problems = []
    for line in (text.strip() for text in lines.splitlines()):
        found = _JUDGE.match(line)
        if found is None:
            if line:
                problems.append(
                    f"Scorers: '{line}' cannot be read; write {JUDGE_HELP}."
                )
            continue
        judge = judges.get(found["id"])
        if judge is None:
            chosen = ", ".join(judges)
            problems.append(
                f"Scorers: '{found['id']}' is not among those chosen ({chosen})."
            )
            continue
        try:
            judges[judge.id] = _judge(judge, found["rest"])
        except ValueError as fault:
            problems.append(f"Scorers: '{line}': {fault}; write {JUDGE_HELP}.")
    if problems:
        raise RecipeError(problems)
    return tuple(judges.values())


def _judge(judge: Judge, text: str) -> Judge:
    options = list(judge.options)
    for pair in text.split(","):
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not value:
            raise ValueError(f"'{pair.strip()}' is no pair")
        if key == "weight":
            judge = replace(judge, weight=float(value))
        elif key == "file":
            judge = replace(judge, weights_file=value)
        else:
            options.append((key, value))
    return replace(judge, options=tuple(options))


def scorer_labels() -> dict[str, str]:
    """Scorer ids by what is shown; those that cannot be used say so."""
    from lib_merge.autombw.scorers import scorers

    return {
        scorer.label + (OFF if scorer.unavailable_reason() else ""): scorer.id
        for scorer in scorers()
    }


def scorer_note(chosen: Sequence[str]) -> str:
    """What the chosen scorers are, or why they cannot be used, as HTML.

    Args:
        chosen: Their ids.
    """
    from lib_merge.autombw.scorers import scorers

    registry = scorers()
    sentences = []
    for scorer_id in chosen:
        scorer = registry.get(scorer_id)
        reason = scorer.unavailable_reason()
        if reason is not None:
            sentences.append(f"{scorer.label}: {reason}")
        card = getattr(scorer, "card", None)
        if card is not None and card.options:
            named = ", ".join(f"{o.name} ({o.help})" for o in card.options)
            sentences.append(f"{scorer_id} takes options: {named}.")
    return markup.hints(sentences)
