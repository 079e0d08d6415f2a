"""Options of a study about payloads and scorers, and what they mean."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_merge.errors import InputError

if TYPE_CHECKING:
    from lib_merge.autombw.payloads import Payload
    from lib_merge.autombw.scoring import Judge

DEFAULT_SCORER = "image_reward"
MEMORY = ("auto", "keep", "unload")


def add_payloads(parser: argparse.ArgumentParser) -> None:
    """Add what is rendered."""
    group = parser.add_argument_group("what is rendered")
    group.add_argument(
        "--payloads",
        nargs="+",
        type=Path,
        required=True,
        metavar="FILE",
        help="payload files (.json, .yaml, .toml, .msgpack), lists of prompts (.txt), "
        "pictures of a WebUI, or folders of them",
    )
    group.add_argument(
        "--unseen",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="payloads that only the finalists are rendered with, at the end",
    )
    group.add_argument(
        "--unseen-share",
        type=float,
        metavar="SHARE",
        help="keep this share of the payloads back for the finalists, e.g. 0.25",
    )
    group.add_argument(
        "--wildcards",
        type=Path,
        metavar="DIR",
        help="folder of wildcard files (default: wildcards in --out)",
    )


def add_scoring(parser: argparse.ArgumentParser) -> None:
    """Add who judges, and how."""
    group = parser.add_argument_group("the judges")
    group.add_argument(
        "--scorer",
        action="append",
        metavar="ID[=WEIGHT]",
        help=f"who judges pictures ({DEFAULT_SCORER}); repeat it for several; see the "
        "command `scorers`",
    )
    group.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="[ID=]FILE",
        help="a scorer's weights: a file or a folder",
    )
    group.add_argument(
        "--scorer-option",
        action="append",
        default=[],
        metavar="ID.NAME=TEXT",
        help="an option of a scorer, e.g. http_judge.url=http://127.0.0.1:8000/score",
    )
    group.add_argument(
        "--normalise",
        choices=("auto", "sigmoid", "z"),
        default="auto",
        help="how raw values become scores: sigmoid as AutoMBW does, or z: measured by "
        "the first trials; auto takes z for several scorers or one of another scale",
    )
    group.add_argument(
        "--scorer-memory",
        choices=MEMORY,
        default="auto",
        help="keep scorers loaded, unload them for every picture, or as it fits (auto)",
    )


def scoring_options(args: argparse.Namespace) -> dict[str, Any]:
    """Fields of `StudySettings` about scorers.

    Raises:
        InputError: An option cannot be read.
        UnknownIdError: No such scorer.
    """
    from lib_merge.autombw.rescoring import natural_normalisation
    from lib_merge.autombw.scoring import ScoringSettings

    judges = read_judges(args.scorer or [DEFAULT_SCORER], args)
    normalise = args.normalise
    if normalise == "auto":
        normalise = natural_normalisation(judges)
    first = judges[0]
    is_plain = len(judges) == 1 and not first.options
    scoring = ScoringSettings(
        judges=() if is_plain else judges,
        normalise=normalise,
        memory=args.scorer_memory,
    )
    return {
        "scorer": first.id,
        "scorer_weights": first.weights_file,
        "scoring": scoring,
    }


def read_judges(texts: list[str], args: argparse.Namespace) -> tuple[Judge, ...]:
    """Scorers with weights, files and options.

    Raises:
        InputError: An option cannot be read.
        UnknownIdError: No such scorer.
    """
    from lib_merge.autombw.panel import find_scorer
    from lib_merge.autombw.scoring import Judge

    weights = {}
    for text in texts:
        scorer_id, _, number = text.partition("=")
        try:
            weights[find_scorer(scorer_id).id] = float(number or 1)
        except ValueError:
            raise InputError(
                f"--scorer {text}: write ID or ID=WEIGHT, e.g. pickscore=0.5."
            ) from None
    files = _files(args.weights, list(weights))
    options = _options(args.scorer_option, list(weights))
    return tuple(
        Judge(scorer_id, weight, files.get(scorer_id), options.get(scorer_id, ()))
        for scorer_id, weight in weights.items()
    )


def _files(texts: list[str], ids: list[str]) -> dict[str, str]:
    files = {}
    for text in texts:
        scorer_id, is_named, path = text.partition("=")
        if not is_named or scorer_id not in ids:
            if len(ids) > 1:
                raise InputError(
                    f"--weights {text}: say whose they are, e.g. {ids[0]}=FILE."
                )
            scorer_id, path = ids[0], text
        files[scorer_id] = str(Path(path).expanduser().absolute())
    return files


def _options(
    texts: list[str], ids: list[str]
) -> dict[str, tuple[tuple[str, str], ...]]:
    from lib_merge.autombw.panel import find_scorer

    found: dict[str, tuple[tuple[str, str], ...]] = {}
    for text in texts:
        key, has_value, value = text.partition("=")
        scorer_id, _, name = key.partition(".")
        if not has_value or not name or scorer_id not in ids:
            raise InputError(
                f"--scorer-option {text}: write ID.NAME=TEXT with one of these "
                f"scorers: {', '.join(ids)}."
            )
        known = [option.name for option in find_scorer(scorer_id).card.options]
        if name not in known:
            raise InputError(
                f"--scorer-option {text}: {scorer_id} has no option '{name}'; it has: "
                f"{', '.join(known) or 'none'}."
            )
        found[scorer_id] = (*found.get(scorer_id, ()), (name, value))
    return found


def payload_options(args: argparse.Namespace) -> dict[str, Any]:
    """Fields of `StudySettings` about payloads; what is odd in files is printed.

    Raises:
        PayloadError: A payload file is wrong, or wildcards cannot be drawn.
        InputError: Held-out payloads are given twice over.
    """
    from lib_merge.autombw.payloads import split_payloads

    payloads = _read(args.payloads, args)
    unseen = _read(args.unseen, args) if args.unseen else ()
    if args.unseen_share is not None:
        if unseen:
            raise InputError("Give --unseen or --unseen-share, not both.")
        payloads, unseen = split_payloads(payloads, args.unseen_share, args.seed)
    return {"payloads": payloads, "held_out_payloads": unseen}


def _read(paths: list[Path], args: argparse.Namespace) -> tuple[Payload, ...]:
    from lib_merge.autombw.payloads import draw_payloads, read_reported
    from lib_merge.autombw.wildcards import FOLDER

    payloads, reports = read_reported(paths)
    for report in reports:
        for sentence in report.sentences():
            print(f"Note: {sentence}")
    fixed = (payload.with_fixed_seed(args.seed) for payload in payloads)
    return draw_payloads(fixed, args.seed, args.wildcards or args.out / FOLDER)
