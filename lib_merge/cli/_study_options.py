"""Options of a search, shared by `study run` and `tournament`, and what they mean."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_merge.cli._scoring_options import (
    add_payloads,
    add_scoring,
    payload_options,
    scoring_options,
)
from lib_merge.errors import InputError

__all__ = [
    "add_host",
    "add_out",
    "add_payloads",
    "add_search",
    "search_options",
    "with_ranges",
]

if TYPE_CHECKING:
    from lib_merge.autombw.settings import StudySettings
    from lib_merge.autombw.space import BlockRange
    from lib_merge.autombw.study import Study
    from lib_merge.core.ports import Host

DEFAULT_OUT = Path("out")

RUNGS = ("no_hires", "draft")


def add_out(parser: argparse.ArgumentParser) -> None:
    """Add the option that says where studies are kept."""
    parser.add_argument(
        "--out",
        type=Path,
        default=DEFAULT_OUT,
        metavar="DIR",
        help="where studies are kept (default: out)",
    )


def add_host(parser: argparse.ArgumentParser) -> None:
    """Add where models lie and where to compute."""
    add_out(parser)
    parser.add_argument(
        "--models",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="where models lie",
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda:0")


def add_search(parser: argparse.ArgumentParser) -> None:
    """Add everything about the search itself."""
    add_scoring(parser)
    group = parser.add_argument_group("the search")
    group.add_argument("--trials", type=int, default=80, help="points to try (80)")
    group.add_argument(
        "--sampler", default="gp", help="gp, tpe, cmaes, qmc, random ..."
    )
    group.add_argument("--tally", default="arithmetic", help="mean over a trial")
    group.add_argument("--seed", type=int, default=0, help="of the sampler")
    group.add_argument("--seeds", type=int, default=1, help="passes over the payloads")
    group.add_argument(
        "--held-out", type=int, default=2, help="passes with unseen seeds at the end"
    )
    group.add_argument(
        "--block",
        action="append",
        default=[],
        metavar="NAME=VALUE|LOW:HIGH",
        help="fix a block, or give it other limits than 0 and 1",
    )
    group.add_argument(
        "--tie",
        action="append",
        default=[],
        metavar="GROUP=NAME,NAME",
        help="let blocks share one value",
    )
    group.add_argument("--precision", default="float32", help="float32 or float64")
    group.add_argument("--save-dtype", default="float16", help="float16 ... or keep")
    group.add_argument(
        "--non-finite", default="stop", help="NaN in a model: stop, leave_out or keep"
    )
    _add_rules(parser)


def _add_rules(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("when it stops early")
    group.add_argument(
        "--patience",
        type=int,
        default=27,
        metavar="N",
        help="stop after so many trials without a gain over noise; 0: never (27)",
    )
    group.add_argument("--hours", type=float, metavar="H", help="stop after this time")
    group.add_argument("--target", type=float, metavar="S", help="stop at this score")
    group.add_argument(
        "--whole", action="store_true", help="never give a trial up before its end"
    )
    group.add_argument(
        "--rungs",
        nargs="+",
        default=[],
        choices=RUNGS,
        help="screen trials with cheaper pictures first, the cheapest first",
    )
    group.add_argument(
        "--diversity",
        default="off",
        help="off, constraint (keep nine tenths of the parents') or objective",
    )


def search_options(args: argparse.Namespace) -> dict[str, Any]:
    """Fields of `StudySettings` that the options name, but for models and name.

    Raises:
        InputError: An option is wrong.
        PayloadError: A payload file is.
    """
    from lib_merge.autombw import fidelity
    from lib_merge.autombw.diversity import DiversitySettings
    from lib_merge.autombw.pruning import PruningSettings
    from lib_merge.autombw.stopping import StoppingSettings

    rungs = {"no_hires": fidelity.NO_HIRES, "draft": fidelity.DRAFT}
    hours = args.hours
    return {
        **payload_options(args),
        **scoring_options(args),
        "tally": args.tally,
        "sampler": args.sampler,
        "n_trials": args.trials,
        "seed": args.seed,
        "n_seeds": args.seeds,
        "n_held_out": args.held_out,
        "compute_dtype": args.precision,
        "save_dtype": args.save_dtype,
        "on_non_finite": args.non_finite,
        "pruning": PruningSettings(is_on=not args.whole),
        "stopping": StoppingSettings(
            n_without_gain=args.patience,
            time_budget_s=None if hours is None else hours * 3600,
            target_score=args.target,
        ),
        "fidelity": fidelity.FidelitySettings(tuple(rungs[r] for r in args.rungs)),
        "diversity": DiversitySettings(use=args.diversity),
    }


def with_ranges(settings: StudySettings, args: argparse.Namespace) -> StudySettings:
    """The settings with the limits and ties that the options name.

    Raises:
        InputError: A block is unknown, or a limit is no number.
        StudyError: Limits that are none, or tied blocks that differ.
    """
    from dataclasses import replace

    ranges = {str(r.block): r for r in settings.ranges}
    for text in args.block:
        name, _, limits = text.partition("=")
        low, _, high = limits.partition(":")
        try:
            numbers = float(low), float(high or low)
        except ValueError:
            raise InputError(
                f"--block {text}: write NAME=VALUE or NAME=LOW:HIGH, e.g. IN00=0.5."
            ) from None
        old = _range(ranges, name)
        ranges[name] = replace(old, low=numbers[0], high=numbers[1])
    for text in args.tie:
        group, _, names = text.partition("=")
        if not names:
            raise InputError(f"--tie {text}: write GROUP=NAME,NAME.")
        for name in names.split(","):
            ranges[name] = replace(_range(ranges, name), group=group)
    return replace(settings, ranges=tuple(ranges.values()))


def _range(ranges: dict[str, BlockRange], name: str) -> BlockRange:
    if name not in ranges:
        raise InputError(
            f"There is no block '{name}'; use one of: {', '.join(ranges)}."
        )
    return ranges[name]


def make_host(study: Study, args: argparse.Namespace) -> Host:
    """Where a study renders."""
    from lib_merge.demo import MODELS_DIR
    from lib_merge.hosts.diffusers import DiffusersHost

    parents = [Path(model).parent for model in study.settings.models]
    folders = list(dict.fromkeys([*args.models, *parents]))
    out = args.out.absolute()
    return DiffusersHost(
        folders,
        out / "models",
        out,
        device=args.device,
        config_dirs=[MODELS_DIR],
    )
