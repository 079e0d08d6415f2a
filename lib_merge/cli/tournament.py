"""`tournament`: many models become one, by pairs and their winners, or as one pool."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_merge.cli._study_options import (
    add_host,
    add_out,
    add_payloads,
    add_search,
    make_host,
    search_options,
    with_ranges,
)

if TYPE_CHECKING:
    from lib_merge.autombw.results import StudyResult
    from lib_merge.autombw.study import Study
    from lib_merge.autombw.tournament import Tournament

NAME = "tournament"
HELP = "merge many models by AutoMBW studies: a tree of pairs, or one pool"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    run_parser = actions.add_parser("run", help="start a tournament")
    run_parser.add_argument("model", nargs="+", help="the models, in order")
    run_parser.add_argument("--name", required=True, help="names the tournament")
    run_parser.add_argument("--kind", default="tree", help="tree (default) or pool")
    run_parser.add_argument(
        "--method", default="weighted_sum", help="how pairs are merged"
    )
    run_parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the plan and, from one timed picture, how long it takes; then stop",
    )
    add_payloads(run_parser)
    add_search(run_parser)
    add_host(run_parser)
    run_parser.set_defaults(action=_run)
    resume = actions.add_parser("resume", help="go on with a tournament")
    resume.add_argument("name", help="its name or folder")
    add_host(resume)
    resume.set_defaults(action=_resume)
    status = actions.add_parser("status", help="show one tournament, or list all")
    status.add_argument("name", nargs="?", help="its name or folder")
    add_out(status)
    status.set_defaults(action=_status)


def run(args: argparse.Namespace) -> int:
    """Do what the action says."""
    return int(args.action(args))


def _run(args: argparse.Namespace) -> int:
    from lib_merge.autombw.tournaments import (
        check_tournament,
        create_tournament,
        plan_tournament,
    )

    out = args.out.absolute()
    wanted: dict[str, Any] = {
        "kind": args.kind,
        "method": args.method,
        "folders": args.models,
        "adapt": lambda settings: with_ranges(settings, args),
        **search_options(args),
    }
    if args.dry_run:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "tournaments" / "plan"
            planned = plan_tournament(place, args.name, args.model, **wanted)
            _say_plan(planned, check_tournament(planned))
            return _dry_run(planned, args)
    made = create_tournament(out, args.name, args.model, **wanted)
    try:
        warnings = check_tournament(made)
    except BaseException:
        (made.folder / "tournament.json").unlink()
        raise
    _say_plan(made, warnings)
    return _work(made, args)


def _say_plan(tournament: Tournament, warnings: tuple[str, ...]) -> None:
    from lib_merge.autombw.tournaments import lines

    for warning in warnings:
        print(f"Note: {warning}")
    for line in lines(tournament):
        print(line)


def _dry_run(tournament: Tournament, args: argparse.Namespace) -> int:
    from lib_merge.autombw.runner import StudyRunner
    from lib_merge.autombw.study import create_study
    from lib_merge.autombw.tournaments import outlook
    from lib_merge.cli._study_view import settle_libraries

    settle_libraries()
    node = tournament.rounds()[0].nodes[0]
    study = create_study(tournament.data_dir, tournament.settings(node))
    estimate = StudyRunner(make_host(study, args), study).time_one()
    print(estimate.sentence())
    print(outlook(tournament, estimate))
    return 0


def _resume(args: argparse.Namespace) -> int:
    from lib_merge.autombw.tournaments import find_tournament

    return _work(find_tournament(args.out.absolute(), args.name), args)


def _work(tournament: Tournament, args: argparse.Namespace) -> int:
    """Run every node that is left."""
    from lib_merge.autombw.runner import StudyRunner
    from lib_merge.cli._study_view import (
        TrialLines,
        settle_libraries,
        show_result,
        stopping_politely,
    )

    settle_libraries()

    def run_study(study: Study) -> StudyResult | None:
        print(f"\n{study.settings.name}", flush=True)
        runner = StudyRunner(
            make_host(study, args), study, listener=TrialLines(), is_timed=True
        )
        with stopping_politely(runner):
            return runner.run()

    result = tournament.run(run_study)
    if result is None:
        print(
            "Stopped. Go on with: python -m lib_merge tournament resume "
            f"{tournament.folder}"
        )
        return 130
    _say_plan(tournament, ())
    last = tournament.study(tournament.last())
    if last is not None:
        show_result(last, result)
    return 0


def _status(args: argparse.Namespace) -> int:
    from lib_merge.autombw.tournaments import find_tournament, list_tournaments

    out = args.out.absolute()
    if args.name is not None:
        _say_plan(find_tournament(out, args.name), ())
        return 0
    found = list_tournaments(out)
    if not found:
        print(f"There are no tournaments in {out}; start one with: tournament run")
    for one in found:
        nodes = [node for round_ in one.rounds() for node in round_.nodes]
        n_done = sum(one.result(node) is not None for node in nodes)
        state = "running" if one.is_running() else "complete"
        if n_done < len(nodes) and not one.is_running():
            state = "stopped"
        print(f"{one.name:<24}{state:<10}{n_done}/{len(nodes)} studies")
    return 0
