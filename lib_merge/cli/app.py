"""`app`: the standalone tab on 127.0.0.1, without a WebUI."""

from __future__ import annotations

import argparse
import shutil
import threading
from pathlib import Path

NAME = "app"
HELP = "start the tab in a browser, without a WebUI"

STOP_TIMEOUT_S = 60.0
"""How long a running study may take to finish its picture when the app is stopped."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--port",
        type=int,
        help="where to listen on 127.0.0.1 (default: the first free)",
    )
    parser.add_argument(
        "--models",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="a folder with checkpoints; may be given again (the demo models and "
        "OUT/models are always there)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out"),
        metavar="OUT",
        help="where merges, studies and recipes go (default: out)",
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda:0")


def run(args: argparse.Namespace) -> int:
    """Serve the tab until Ctrl-C."""
    from lib_merge.cli._study_view import settle_libraries

    settle_libraries()
    from lib_merge.api import attach
    from lib_merge.demo import MODELS_DIR, PAYLOADS_DIR
    from lib_merge.errors import InputError
    from lib_merge.hosts.diffusers import DiffusersHost
    from lib_merge.ui.app import launch_app
    from lib_merge.ui.workspace import workspace_of

    missing = [folder for folder in args.models if not folder.is_dir()]
    if missing:
        raise InputError(f"--models {missing[0]} is no folder; give one that exists.")
    out = args.out.absolute()
    folders = [MODELS_DIR, *(folder.absolute() for folder in args.models)]
    host = DiffusersHost(folders, out / "models", out, device=args.device)
    _offer_payloads(PAYLOADS_DIR, out / "payloads" / "demo")
    running = launch_app(host, args.port)
    attach(running.app, host, demo=running.blocks)
    print(f"MergeLab is at {running.address} (Ctrl-C stops it)", flush=True)
    desk = workspace_of(host).studies
    try:
        threading.Event().wait()
    finally:
        desk.stop_and_wait(STOP_TIMEOUT_S)
        running.close()
    return 0


def _offer_payloads(source: Path, target: Path) -> None:
    """Put the demo's payload files where the tab looks for payloads."""
    for file in sorted(source.glob("*.json")):
        copy = target / file.name
        if not copy.exists():
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
