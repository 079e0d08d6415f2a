"""`study`: run, resume, look at and export AutoMBW studies without a WebUI."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from lib_merge.cli._study_files import add_file_actions
from lib_merge.errors import InputError

if TYPE_CHECKING:
    from lib_merge.autombw.study import Study
    from lib_merge.core.ports import Host

NAME = "study"
HELP = "search for the best block weights (AutoMBW)"

DEFAULT_OUT = Path("out")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    _add_run(actions.add_parser("run", help="start a study"))
    resume = actions.add_parser("resume", help="go on with a study that was stopped")
    resume.add_argument("name", help="the study's name or folder")
    resume.add_argument("--trials", type=int, help="raise the number of trials to this")
    _add_host(resume)
    resume.set_defaults(action=_resume)
    status = actions.add_parser("status", help="show one study, or list all")
    status.add_argument("name", nargs="?", help="the study's name or folder")
    _add_out(status)
    status.set_defaults(action=_status)
    add_file_actions(actions, _add_out)


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out",
        type=Path,
        default=DEFAULT_OUT,
        metavar="DIR",
        help="where studies are kept (default: out)",
    )


def _add_host(parser: argparse.ArgumentParser) -> None:
    _add_out(parser)
    parser.add_argument(
        "--models",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="where models lie",
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda:0")


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("method", help="merge method, e.g. weighted_sum")
    parser.add_argument("model", nargs="+", metavar="A B", help="the models, in order")
    parser.add_argument("--name", required=True, help="names the study")
    parser.add_argument(
        "--payloads",
        nargs="+",
        type=Path,
        required=True,
        metavar="FILE",
        help="AutoMBW payload files (.json), or folders of them",
    )
    group = parser.add_argument_group("the search")
    group.add_argument("--scorer", default="image_reward", help="who judges pictures")
    group.add_argument(
        "--weights", type=Path, metavar="FILE", help="the scorer's weights"
    )
    group.add_argument("--trials", type=int, default=80, help="points to try")
    group.add_argument("--sampler", default="gp", help="gp, tpe, cmaes or random")
    group.add_argument("--tally", default="arithmetic", help="mean over a trial")
    group.add_argument("--seed", type=int, default=0, help="of the sampler")
    group.add_argument("--seeds", type=int, default=1, help="passes over the payloads")
    group.add_argument(
        "--held-out", type=int, default=2, help="passes with unseen seeds at the end"
    )
    group.add_argument("--precision", default="float32", help="float32 or float64")
    group.add_argument("--save-dtype", default="float16", help="float16 ... or keep")
    group.add_argument(
        "--save", type=Path, metavar="O.safetensors", help="save the winner as a file"
    )
    _add_host(parser)
    parser.set_defaults(action=_run)


def run(args: argparse.Namespace) -> int:
    """Do what the action says."""
    return int(args.action(args))


def _run(args: argparse.Namespace) -> int:
    from lib_merge.autombw.payloads import read_payloads
    from lib_merge.autombw.preflight import new_settings
    from lib_merge.autombw.scorers import scorers
    from lib_merge.autombw.study import create_study

    reason = scorers().get(args.scorer).unavailable_reason()
    if reason is not None and args.weights is None:
        raise InputError(f"The scorer {args.scorer} cannot be used: {reason}")
    settings = new_settings(
        args.name,
        args.method,
        args.model,
        payloads=read_payloads(args.payloads),
        folders=args.models,
        scorer=args.scorer,
        scorer_weights=str(args.weights.absolute()) if args.weights else None,
        tally=args.tally,
        sampler=args.sampler,
        n_trials=args.trials,
        seed=args.seed,
        n_seeds=args.seeds,
        n_held_out=args.held_out,
        compute_dtype=args.precision,
        save_dtype=args.save_dtype,
        checkpoint=str(args.save.absolute()) if args.save else None,
    )
    return _work(create_study(args.out.absolute(), settings), args)


def _resume(args: argparse.Namespace) -> int:
    from lib_merge.autombw.study import extend_study, find_study

    study = find_study(args.out.absolute(), args.name)
    if args.trials is not None:
        study = extend_study(study, args.trials)
    return _work(study, args)


def _work(study: Study, args: argparse.Namespace) -> int:
    """Run a study to its end, or until it is stopped."""
    from lib_merge.autombw.runner import StudyRunner
    from lib_merge.cli._study_view import (
        TrialLines,
        settle_libraries,
        show_result,
        stopping_politely,
    )

    settle_libraries()
    runner = StudyRunner(_host(study, args), study, listener=TrialLines())
    with stopping_politely(runner):
        result = runner.run()
    if result is None:
        print(f"Stopped. Go on with: python -m lib_merge study resume {study.folder}")
        return 130
    show_result(study, result)
    return 0


def _host(study: Study, args: argparse.Namespace) -> Host:
    from lib_merge.hosts.diffusers import DiffusersHost

    parents = [Path(model).parent for model in study.settings.models]
    folders = list(dict.fromkeys([*args.models, *parents]))
    out = args.out.absolute()
    return DiffusersHost(folders, out / "models", out, device=args.device)


def _status(args: argparse.Namespace) -> int:
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
    _show(find_study(out, args.name))
    return 0


def _show(study: Study) -> None:
    from lib_merge.autombw.study import live_snapshot
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
    failed = [r for r in study.records() if not r.is_complete]
    if failed:
        print(f"failed   {len(failed)} attempts, the last: {failed[-1].reason}")
    live = live_snapshot(study)
    if live is not None and live.message:
        age = format_seconds(max(0.0, time.time() - live.updated))
        print(f"last     {live.message} ({live.state}, {age} ago)")
    result = study.result()
    if result is not None:
        show_result(study, result)
