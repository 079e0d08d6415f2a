"""`demo`: the main job on the demo models, from the study to the saved checkpoint."""

from __future__ import annotations

import argparse
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lib_merge.errors import InputError, OutputError

if TYPE_CHECKING:
    from lib_merge.autombw.settings import StudySettings
    from lib_merge.autombw.study import Study

NAME = "demo"
HELP = "run an AutoMBW study on the demo models: search, check, save, report"

N_TRIALS = 70
N_SEEDS = 2
N_HELD_OUT = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--seed", type=int, default=0, help="another seed, another run")
    parser.add_argument(
        "--trials", type=int, default=N_TRIALS, help=f"points to try ({N_TRIALS})"
    )
    parser.add_argument(
        "--fresh", action="store_true", help="forget an earlier run of this seed"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out/demo"),
        metavar="DIR",
        help="where everything goes (default: out/demo)",
    )


def run(args: argparse.Namespace) -> int:
    """Run the demo's study, or go on with it, or show its result again."""
    from lib_merge.cli._study_view import (
        TrialLines,
        settle_libraries,
        show_result,
        stopping_politely,
    )

    settle_libraries()
    import torch

    from lib_merge.autombw.runner import StudyRunner
    from lib_merge.demo import MODELS_DIR
    from lib_merge.hosts.diffusers import DiffusersHost

    # The demo's networks are small: more threads only get in each other's way.
    torch.set_num_threads(min(2, torch.get_num_threads()))
    started = time.monotonic()
    out = args.out.absolute()
    study = _study(out, args)
    before = study.result()
    if before is not None and study.summary().n_complete >= args.trials:
        print("This study is complete; --fresh runs it again, --seed another one.")
        show_result(study, before)
        return 0
    _introduce(study)
    host = DiffusersHost([MODELS_DIR], out, out)
    runner = StudyRunner(host, study, listener=TrialLines())
    with stopping_politely(runner):
        result = runner.run()
    if result is None:
        print("Stopped. The same command goes on where it stopped.")
        return 130
    show_result(study, result)
    print(f"\n{time.monotonic() - started:.0f} s")
    return 0


def _study(out: Path, args: argparse.Namespace) -> Study:
    """This seed's study: the one that is there, or a new one."""
    from lib_merge.autombw.study import create_study, extend_study, open_study

    settings = _settings(out, args)
    folder = out / "studies" / settings.name
    if args.fresh and folder.exists():
        _forget(folder)
    if not (folder / "settings.json").is_file():
        return create_study(out, settings)
    study = open_study(folder)
    wanted = replace(settings, n_trials=study.settings.n_trials)
    if study.settings.to_json() != wanted.to_json():
        raise InputError(
            f"{folder} holds a study with other settings (of another version?); run "
            "the demo with --fresh, or with another --out."
        )
    if args.trials > study.settings.n_trials:
        return extend_study(study, args.trials)
    return study


def _forget(folder: Path) -> None:
    """Delete an earlier study, unless it is running or is something else."""
    from lib_merge.autombw.study import open_study

    study = open_study(folder)
    if study.is_running():
        raise OutputError(
            f"The study in {folder} is running; stop it before you start afresh."
        )
    shutil.rmtree(folder)


def _settings(out: Path, args: argparse.Namespace) -> StudySettings:
    from lib_merge.autombw.payloads import read_payloads
    from lib_merge.autombw.preflight import new_settings
    from lib_merge.demo import MODEL_A, MODEL_B, PAYLOADS_DIR

    name = f"demo-seed{args.seed}"
    # Another seed means other pictures too, not only other suggestions.
    read = (replace(payload, seed=-1) for payload in read_payloads([PAYLOADS_DIR]))
    payloads = tuple(payload.with_fixed_seed(args.seed) for payload in read)
    return new_settings(
        name,
        "weighted_sum",
        [str(MODEL_A), str(MODEL_B)],
        payloads=payloads,
        scorer="demo_judge",
        sampler="gp",
        n_trials=args.trials,
        seed=args.seed,
        n_seeds=N_SEEDS,
        n_held_out=N_HELD_OUT,
        checkpoint=str(out / f"{name}.safetensors"),
    )


def _introduce(study: Study) -> None:
    settings = study.settings
    n_free = sum(not r.is_fixed for r in settings.ranges)
    print(
        f"Searching the weights of {n_free} blocks between two small diffusion models, "
        "each of which draws wrong what the other draws right:\n"
        f"{settings.n_trials} trials of {settings.n_images} pictures "
        f"({len(settings.payloads)} prompts), judged by {settings.scorer}; sampler "
        f"{settings.sampler}, seed {settings.seed}.\n"
        "Every trial is stored before the next begins: stop it or kill it at any "
        "moment, and the same command goes on.",
        flush=True,
    )
