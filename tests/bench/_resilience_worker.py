"""A demo study in a process of its own that says how it fares, trial by trial.

    python -m tests.bench._resilience_worker STUDY_FOLDER LOG [helper]

A line of LOG is a JSON list: trial, resident bytes, and the seconds since the trial
before, of which rendering, scoring and merging took so many.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Clock:
    """Adds up what calls take."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, on the clock."""

        def measured(*args: Any, **more: Any) -> Any:
            began = time.perf_counter()
            try:
                return call(*args, **more)
            finally:
                self.seconds += time.perf_counter() - began

        return measured


def main() -> None:
    """Run the study to its end."""
    folder, log = Path(sys.argv[1]), Path(sys.argv[2])
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import torch

    torch.set_num_threads(1)

    from lib_merge.autombw._heap import resident_bytes
    from lib_merge.autombw.objective import LivePoint
    from lib_merge.autombw.panel import Panel
    from lib_merge.autombw.runner import StudyRunner
    from lib_merge.autombw.snapshot import RUNNING, Snapshot
    from lib_merge.autombw.study import open_study
    from lib_merge.demo import MODELS_DIR
    from lib_merge.hosts.diffusers import DiffusersHost

    host = DiffusersHost([MODELS_DIR], folder.parent, folder.parent)
    render, score, merge = Clock(), Clock(), Clock()
    host.renderer.render = render.timed(host.renderer.render)  # type: ignore[method-assign]
    Panel.score = score.timed(Panel.score)  # type: ignore[method-assign]
    LivePoint.ensure = merge.timed(LivePoint.ensure)  # type: ignore[method-assign]
    last: list[float] = []

    with log.open("a") as file:

        def listener(now: Snapshot) -> None:
            times = [time.perf_counter(), render.seconds, score.seconds, merge.seconds]
            if now.state != RUNNING or (last and last[0] == now.trial):
                return
            if last:
                spans = [b - a for a, b in zip(last[1:], times, strict=True)]
                file.write(json.dumps([now.trial, resident_bytes(), *spans]) + "\n")
                file.flush()
            last[:] = [now.trial, *times]

        is_helper = sys.argv[3:] == ["helper"]
        study = open_study(folder)
        StudyRunner(host, study, listener=listener, is_helper=is_helper).run()


if __name__ == "__main__":
    main()
