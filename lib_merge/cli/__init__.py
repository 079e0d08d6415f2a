"""The command line, `python -m lib_merge COMMAND`; one file of this package each."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType, ModuleType

import lib_merge
from lib_merge.core.registry import discover
from lib_merge.errors import Cancelled, InputError, MergeError

EXIT_OK = 0
EXIT_FAULT = 1
EXIT_INPUT = 2
EXIT_CANCELLED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments without the program's name; None takes those of the process.

    Returns:
        0, or 2 for input that cannot be used, 130 when the user stopped it, 1 for
        every other fault. Faults are one message on stderr, with `--debug` a traceback.
    """
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.DEBUG if args.debug else logging.WARNING)
    try:
        with _polite_signals():
            return int(args.run(args))
    except (Cancelled, KeyboardInterrupt) as stop:
        print(f"\nStopped. {stop}".rstrip(), file=sys.stderr)
        return EXIT_CANCELLED
    except MergeError as fault:
        _show(fault, is_debug=args.debug)
        return EXIT_INPUT if isinstance(fault, InputError) else EXIT_FAULT
    except BrokenPipeError:
        # `inspect FILE | head` closes our output; that is no fault.
        sys.stderr.close()
        return EXIT_FAULT
    except Exception as fault:
        _show(fault, is_debug=True)
        print("This is a fault of MergeLab; please report it.", file=sys.stderr)
        return EXIT_FAULT


def _show(fault: BaseException, *, is_debug: bool) -> None:
    if is_debug:
        traceback.print_exception(type(fault), fault, fault.__traceback__)
    print(f"Error: {fault}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lib_merge",
        description="Merge Stable Diffusion checkpoints and search for the best merge.",
    )
    parser.add_argument(
        "--version", action="version", version=f"MergeLab {lib_merge.__version__}"
    )
    parser.add_argument(
        "--debug", action="store_true", help="show tracebacks and debug messages"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in _modules():
        command = commands.add_parser(
            module.NAME, help=module.HELP, description=module.HELP
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def _modules() -> Iterator[ModuleType]:
    """The command modules; each has NAME, HELP, add_arguments(parser), run(args)."""
    yield from discover(sys.modules[__name__])


@contextmanager
def _polite_signals() -> Iterator[None]:
    """SIGTERM stops like Ctrl-C, and a second Ctrl-C cannot break the cleaning up.

    After such a stop both stay ignored: the process is about to end by itself.
    """
    is_stopped = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal is_stopped
        is_stopped = True
        for name in _stop_signals():
            signal.signal(name, signal.SIG_IGN)
        raise KeyboardInterrupt

    try:
        before = {name: signal.signal(name, stop) for name in _stop_signals()}
    except ValueError:
        # Signals belong to the main thread; elsewhere the caller's rules stay.
        yield
        return
    try:
        yield
    finally:
        if not is_stopped:
            for name, handler in before.items():
                signal.signal(name, handler)


def _stop_signals() -> tuple[signal.Signals, ...]:
    return (signal.SIGINT, signal.SIGTERM)
