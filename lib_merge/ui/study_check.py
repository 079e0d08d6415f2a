"""Before a study: everything that can be checked, and one timed picture."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from lib_merge.core.ports import Host, Progress, Scorer
from lib_merge.ui.preferences import Preferences

if TYPE_CHECKING:
    from lib_merge.autombw.objective import Merger
    from lib_merge.autombw.settings import StudySettings


def check_study(
    host: Host,
    settings: StudySettings,
    *,
    scorer: Scorer | None,
    merger: Merger,
    progress: Progress,
    scorer_device: str | None = None,
) -> str:
    """Check a study and time a picture of its first start point; nothing is kept.

    Args:
        host: Renders; its model is put back.
        settings: The study's.
        scorer: A scorer in place of the registered ones, or None.
        merger: Merges into the host's loaded model.
        progress: Advanced while the models are read.
        scorer_device: Where scorers run; None takes the host's device.

    Returns:
        What it will take, and warnings.

    Raises:
        StudyError: Every error at once.
        MergeError: Whatever merging, rendering and scoring raise.
    """
    from lib_merge.autombw.checks import check_before_start
    from lib_merge.autombw.runner import StudyRunner
    from lib_merge.autombw.study import create_study

    folder = Preferences(host).studies_dir()
    warnings = check_before_start(settings, folder, progress=progress)
    with tempfile.TemporaryDirectory() as place:
        study = create_study(Path(place), settings)
        runner = StudyRunner(
            host, study, scorer, merger=merger, scorer_device=scorer_device
        )
        found = runner.time_one()
    return " ".join([found.sentence(), *warnings])
