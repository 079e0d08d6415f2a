"""`select`: try each model's CLIP or UNet in an average of all; keep the good ones."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from lib_merge.cli import _common
from lib_merge.cli._progress import TerminalProgress
from lib_merge.errors import InputError

if TYPE_CHECKING:
    from lib_merge.autombw.selection_store import (
        SelectionResult,
        SelectionSettings,
        TrialPicture,
    )

NAME = "select"
HELP = "try each model's text encoder or UNet in an average, one picture each"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    _add_run(actions.add_parser("run", help="try the models, or go on with it"))
    show = actions.add_parser("show", help="show how a selection stands")
    show.add_argument("name", help="the selection's name or folder")
    _add_out(show)
    show.set_defaults(action=_show)
    keep = actions.add_parser("keep", help="write the kept models as a list")
    keep.add_argument("name", help="the selection's name or folder")
    keep.add_argument("kept", metavar="1,3,5", help="numbers or names in the grid")
    keep.add_argument(
        "--list",
        type=Path,
        metavar="LIST.txt",
        help="where the list goes (default: kept.txt in the selection's folder); the "
        "next merge takes it with --pool-from",
    )
    _add_out(keep)
    keep.set_defaults(action=_keep)


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="names the selection")
    parser.add_argument("model", nargs="*", metavar="MODEL", help="the models")
    parser.add_argument(
        "--pool-from",
        action="append",
        default=[],
        type=Path,
        metavar="LIST.txt",
        help="more models, one a line",
    )
    parser.add_argument(
        "--part",
        default="text",
        help="what of each model is tried: text (every text encoder), unet, clip_l, "
        "clip_g ... (default: text)",
    )
    parser.add_argument(
        "--payload", type=Path, required=True, metavar="FILE", help="what is rendered"
    )
    parser.add_argument(
        "--average",
        metavar="FILE",
        help="put the parts into this model instead of the average of all",
    )
    parser.add_argument(
        "--models",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="where models lie",
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda:0")
    parser.add_argument("--memory", default="2GB", help="most memory for buffers")
    _add_out(parser)
    parser.set_defaults(action=_run)


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out"),
        metavar="DIR",
        help="where selections are kept (default: out)",
    )


def run(args: argparse.Namespace) -> int:
    """Do what the action says."""
    return int(args.action(args))


def _run(args: argparse.Namespace) -> int:
    from lib_merge.cli._study_view import settle_libraries

    n_bytes = _common.parse_size(args.memory)
    settle_libraries()
    from lib_merge.autombw.selection import run_selection
    from lib_merge.demo import MODELS_DIR
    from lib_merge.engine.run import RunOptions
    from lib_merge.hosts.diffusers import DiffusersHost

    settings = _settings(args)
    out = args.out.absolute()
    parents = [Path(model).parent for model in settings.models]
    folders = list(dict.fromkeys([*args.models, *parents]))
    host = DiffusersHost(
        folders,
        out / "models",
        out,
        device=args.device,
        config_dirs=[MODELS_DIR],
    )
    progress = TerminalProgress()
    try:
        result = run_selection(
            host,
            out,
            settings,
            options=RunOptions(budget_bytes=n_bytes, device=args.device),
            progress=progress,
        )
    finally:
        progress.close()
    _print(result)
    return 0


def _settings(args: argparse.Namespace) -> SelectionSettings:
    from lib_merge.autombw.payloads import read_payloads
    from lib_merge.autombw.selection_store import selection_settings

    listed = [name for path in args.pool_from for name in _common.read_model_list(path)]
    payloads = read_payloads([args.payload])
    if len(payloads) > 1:
        raise InputError(
            f"--payload {args.payload} holds {len(payloads)} payloads; name one file."
        )
    return selection_settings(
        args.name,
        [*args.model, *listed],
        args.part,
        payloads[0],
        folders=args.models,
        average=args.average,
    )


def _opened(args: argparse.Namespace) -> SelectionResult:
    from lib_merge.autombw.selection_store import open_selection, selection_folder

    return open_selection(selection_folder(args.out.absolute(), args.name))


def _show(args: argparse.Namespace) -> int:
    _print(_opened(args))
    return 0


def _keep(args: argparse.Namespace) -> int:
    from lib_merge.autombw.selection_store import KEPT, keep_models

    result = _opened(args)
    names = [name.strip() for name in args.kept.split(",") if name.strip()]
    for file in keep_models(result, names, args.list):
        print(file)
    print(f"{args.list or result.folder / KEPT}  (a list for --pool-from)")
    return 0


def _print(result: SelectionResult) -> None:
    for cell in result.pictures:
        print(_line(cell))
    print(f"{result.png}\n{result.html}")
    if result.is_complete:
        name = result.settings.name
        print(f"Keep some with: python -m lib_merge select keep {name} 1,2,...")
    else:
        print("Not complete yet; the same `select run` goes on.")


def _line(cell: TrialPicture) -> str:
    state = cell.picture or cell.fault or "not rendered yet"
    return f"{cell.number:>4}  {cell.name:<32}{state}"
