"""`study`: run, join, resume, look at and export AutoMBW studies without a WebUI."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from lib_merge.cli._study_files import add_file_actions
from lib_merge.cli._study_options import (
    add_host,
    add_out,
    add_payloads,
    add_search,
    make_host,
    search_options,
    with_ranges,
)
from lib_merge.cli._study_starts import add_space, with_starts

if TYPE_CHECKING:
    from lib_merge.autombw.settings import StudySettings
    from lib_merge.autombw.study import Study

NAME = "study"
HELP = "search for the best block weights (AutoMBW)"

STORAGE_HELP = (
    "share the study through postgresql://USER@HOST/DB, mysql://..., sqlite:///FILE "
    "or journal:FILE, so that other machines can join"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    _add_run(actions.add_parser("run", help="start a study"))
    resume = actions.add_parser("resume", help="go on with a study that was stopped")
    resume.add_argument("name", help="the study's name or folder")
    resume.add_argument("--trials", type=int, help="raise the number of trials to this")
    add_host(resume)
    resume.set_defaults(action=_resume)
    _add_join(actions.add_parser("join", help="help with a study that is running"))
    status = actions.add_parser("status", help="show one study, or list all")
    status.add_argument("name", nargs="?", help="the study's name or folder")
    add_out(status)
    status.set_defaults(action=_status)
    add_file_actions(actions, add_out)


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("method", help="merge method, e.g. weighted_sum")
    parser.add_argument("model", nargs="+", metavar="A B", help="the models, in order")
    parser.add_argument("--name", required=True, help="names the study")
    add_payloads(parser)
    add_search(parser)
    add_space(parser)
    parser.add_argument(
        "--save", type=Path, metavar="O.safetensors", help="save the winner as a file"
    )
    parser.add_argument("--storage", metavar="URL", help=STORAGE_HELP)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything, time one picture, say how long it takes, and stop",
    )
    add_host(parser)
    parser.set_defaults(action=_run)


def _add_join(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="the study's name or folder")
    parser.add_argument("--storage", metavar="URL", help="where it is shared")
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="the scorer's weights here"
    )
    add_host(parser)
    parser.set_defaults(action=_join)


def run(args: argparse.Namespace) -> int:
    """Do what the action says."""
    return int(args.action(args))


def _run(args: argparse.Namespace) -> int:
    from lib_merge.autombw.checks import check_before_start
    from lib_merge.autombw.preflight import new_settings
    from lib_merge.autombw.sharing import create_shared_study
    from lib_merge.autombw.storage import StoragePlace
    from lib_merge.autombw.study import create_study

    out = args.out.absolute()
    place = StoragePlace.parse(args.storage) if args.storage else None
    settings = new_settings(
        args.name,
        args.method,
        args.model,
        folders=args.models,
        checkpoint=str(args.save.absolute()) if args.save else None,
        space="; ".join(args.space),
        **search_options(args),
    )
    settings = with_starts(with_ranges(settings, args), args)
    for warning in check_before_start(settings, out):
        print(f"Note: {warning}")
    if args.dry_run:
        return _dry_run(settings, args)
    if place is None:
        study = create_study(out, settings)
    else:
        study = create_shared_study(out, settings, place)
    return _work(study, args)


def _dry_run(settings: StudySettings, args: argparse.Namespace) -> int:
    """Time one picture in a folder that is thrown away."""
    from lib_merge.autombw.runner import StudyRunner
    from lib_merge.autombw.study import create_study
    from lib_merge.cli._study_view import settle_libraries

    settle_libraries()
    with tempfile.TemporaryDirectory() as folder:
        study = create_study(Path(folder), settings)
        estimate = StudyRunner(make_host(study, args), study).time_one()
    print(estimate.sentence())
    return 0


def _resume(args: argparse.Namespace) -> int:
    from lib_merge.autombw.sharing import refresh_study
    from lib_merge.autombw.study import extend_study, find_study

    study = refresh_study(find_study(args.out.absolute(), args.name))
    if args.trials is not None:
        study = extend_study(study, args.trials)
    return _work(study, args)


def _join(args: argparse.Namespace) -> int:
    from lib_merge.autombw.sharing import join_shared_study, refresh_study
    from lib_merge.autombw.storage import StoragePlace
    from lib_merge.autombw.study import find_study
    from lib_merge.errors import InputError

    out = args.out.absolute()
    if args.storage is not None:
        place = StoragePlace.parse(args.storage)
        study = join_shared_study(
            out, place, args.name, folders=args.models, weights=args.weights
        )
    elif args.name is not None:
        study = refresh_study(find_study(out, args.name))
    else:
        raise InputError("Name the study to join, or give its --storage.")
    return _work(study, args, is_helper=True)


def _work(study: Study, args: argparse.Namespace, *, is_helper: bool = False) -> int:
    """Run a study to its end, or until it is stopped."""
    from lib_merge.autombw.runner import StudyRunner
    from lib_merge.cli._study_view import (
        TrialLines,
        settle_libraries,
        show_result,
        stopping_politely,
    )

    settle_libraries()
    runner = StudyRunner(
        make_host(study, args),
        study,
        listener=TrialLines(),
        is_helper=is_helper,
        is_timed=not is_helper,
    )
    with stopping_politely(runner):
        result = runner.run()
    if result is None:
        verb = "join" if is_helper else "resume"
        print(f"Stopped. Go on with: python -m lib_merge study {verb} {study.folder}")
        return 130
    show_result(study, result)
    return 0


def _status(args: argparse.Namespace) -> int:
    from lib_merge.autombw.sharing import refresh_study
    from lib_merge.autombw.study import find_study, list_studies

    out = args.out.absolute()
    if args.name is None:
        found = list_studies(out)
        if not found:
            print(f"There are no studies in {out}; start one with: study run")
        for one in found:
            best = "" if one.best_score is None else f"  best {one.best_score:.4f}"
            trials = f"{one.n_complete}/{one.n_trials} trials"
            print(f"{one.name:<24}{one.state:<10}{trials:>16}{best}")
        return 0
    _show(refresh_study(find_study(out, args.name)))
    return 0


def _show(study: Study) -> None:
    from lib_merge.autombw.estimate import read_estimate
    from lib_merge.autombw.records import PRUNED
    from lib_merge.autombw.study import live_snapshot, worker_snapshots
    from lib_merge.cli._progress import format_seconds
    from lib_merge.cli._study_view import show_result

    summary = study.summary()
    print(f"study    {summary.name} ({summary.state})")
    print(f"folder   {summary.folder}")
    print(f"trials   {summary.n_complete} of {summary.n_trials} scored")
    best = study.best()
    if best is not None and best.score is not None:
        label = f" ({best.label})" if best.label else ""
        print(f"best     {best.score:.4f}, trial {best.number}{label}")
    n_pruned = sum(r.state == PRUNED for r in study.records())
    if n_pruned:
        print(f"given up {n_pruned} trials early, by their first pictures")
    failed = [r for r in study.records() if r.score is None]
    if failed:
        print(f"failed   {len(failed)} attempts, the last: {failed[-1].reason}")
    if study.is_remote:
        print(f"storage  {study.place.shown}")
    estimate = read_estimate(study.folder)
    if estimate is not None and summary.state != "complete":
        print(f"estimate {estimate.sentence()}")
    for name, said in worker_snapshots(study).items():
        print(f"worker   {name}: {said.message}")
    live = live_snapshot(study)
    if live is not None and live.message:
        age = format_seconds(max(0.0, time.time() - live.updated))
        print(f"last     {live.message} ({live.state}, {age} ago)")
    result = study.result()
    if result is not None:
        show_result(study, result)
