"""`study rescore`: other weights for the scorers of a stored study."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from lib_merge.errors import InputError


def add_rescore(
    actions: Any, add_out: Callable[[argparse.ArgumentParser], None]
) -> None:
    """Declare the verb.

    Args:
        actions: The subparsers of `study`.
        add_out: Adds the option that says where studies are kept.
    """
    rescore = actions.add_parser(
        "rescore", help="weigh the scorers otherwise; nothing is rendered"
    )
    rescore.add_argument("name", help="the study's name or folder")
    rescore.add_argument(
        "--scorer",
        action="append",
        required=True,
        metavar="ID=WEIGHT",
        help="a scorer's new weight, 0 to leave it out; repeat it for several",
    )
    add_out(rescore)
    rescore.set_defaults(action=_rescore)


def _rescore(args: argparse.Namespace) -> int:
    from lib_merge.autombw.rescoring import rescore_study
    from lib_merge.autombw.study import find_study

    weights = {}
    for text in args.scorer:
        scorer_id, _, number = text.partition("=")
        try:
            weights[scorer_id] = float(number)
        except ValueError:
            raise InputError(
                f"--scorer {text}: write ID=WEIGHT, e.g. pickscore=0.5."
            ) from None
    study = find_study(args.out.absolute(), args.name)
    before = study.best()
    study = rescore_study(study, weights)
    for judge in study.settings.judges:
        print(f"{judge.id:<18}weight {judge.weight:g}")
    for label, best in (("before", before), ("now", study.best())):
        if best is not None and best.score is not None:
            print(f"best {label:<13}trial {best.number}, score {best.score:.4f}")
    print(f"Go on with: python -m lib_merge study resume {study.folder}")
    return 0
