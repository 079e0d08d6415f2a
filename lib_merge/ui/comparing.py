"""The comparison that all pages share: one job at a time, the last result kept."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lib_merge.core.ports import Host, Progress
from lib_merge.errors import InputError
from lib_merge.ui import markup
from lib_merge.ui.jobs import JobSlot

if TYPE_CHECKING:
    from lib_merge.analysis.comparison import Comparison
    from lib_merge.analysis.drawing import Drawing
    from lib_merge.analysis.histogram import Histogram

FOLDER = "comparisons"
"""Where exports go, inside the host's data folder."""


class CompareDesk:
    """Runs comparisons in the background and keeps the last one.

    Args:
        host: Whose data folder the exports go to.
    """

    def __init__(self, host: Host) -> None:
        self.job = JobSlot()
        self._host = host
        self._lock = threading.Lock()
        self._comparison: Comparison | None = None
        self._histogram: Histogram | None = None
        self.n_results = 0

    @property
    def comparison(self) -> Comparison | None:
        """The last comparison that came to its end, or was opened."""
        return self._comparison

    @property
    def histogram(self) -> Histogram | None:
        """The last histogram of two of its models."""
        return self._histogram

    def start(
        self, paths: Sequence[Path], base: Path | None, predict_share: float | None
    ) -> None:
        """Start comparing files; headers are checked at once.

        Args:
            paths: Two or more models, or one and a base.
            base: What changes are measured from; None takes the first.
            predict_share: See `CompareOptions`.

        Raises:
            InputError: Another comparison runs, or the files cannot be compared.
            CheckpointError: A file is missing or damaged.
        """
        from lib_merge.analysis.distances import CompareOptions, compare_models
        from lib_merge.analysis.models import find_models

        models = find_models(list(paths), base)
        options = CompareOptions(predict_share=predict_share)

        def work(progress: Progress) -> str:
            found = compare_models(models, options, progress)
            self._keep(found)
            return (
                f"{markup.count(len(found.names), 'model')}, "
                f"{markup.size(found.n_bytes)} read in {markup.duration(found.seconds)}"
            )

        self.job.start("Compare", work)

    def open(self, path: Path) -> None:
        """Show a comparison that was saved, or a published matrix.

        Raises:
            InputError: The file is neither, or a comparison is running.
        """
        from lib_merge.analysis.tables import load_comparison

        if self.job.is_busy:
            raise InputError("A comparison is running; wait for it or cancel it.")
        self._keep(load_comparison(path))

    def start_histogram(self, one: int, two: int, block: str) -> None:
        """Start reading one block of two models for a histogram of the differences.

        Raises:
            InputError: There is no comparison, its files are unknown, or a job runs.
        """
        from lib_merge.analysis.histogram import difference_histogram

        found = self.result()
        if not found.paths or one == two:
            raise InputError(
                "A histogram reads the files of two different models: compare files "
                "here (an opened matrix names none), then choose two."
            )
        first, second = (Path(found.paths[i]) for i in (one, two))

        def work(progress: Progress) -> str:
            progress.check()
            histogram = difference_histogram(first, second, block)
            with self._lock:
                self._histogram = histogram
                self.n_results += 1
            return f"the differences of {block} are drawn below."

        self.job.start("Histogram", work)

    def result(self) -> Comparison:
        """The comparison that is shown.

        Raises:
            InputError: There is none yet.
        """
        if self._comparison is None:
            raise InputError("Nothing was compared yet; choose models and compare.")
        return self._comparison

    def export(self, part: str, plane: Drawing) -> Path:
        """Write the comparison's tables and charts into a folder of their own.

        Args:
            part: What the charts are of.
            plane: The map as it is shown.

        Returns:
            The folder, with comparison.json, .csv, and each chart as SVG and PNG.

        Raises:
            InputError: There is no comparison.
            OutputError: A file cannot be written.
        """
        from lib_merge.analysis import charts, tables
        from lib_merge.analysis.drawing import save_drawing

        found = self.result()
        stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
        folder = self._host.catalog.data_dir() / FOLDER / stamp
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(tables.to_json(found, "block")) + "\n"
        tables.save_text(text, folder / "comparison.json")
        tables.save_text(tables.to_csv(found, "block"), folder / "comparison.csv")
        drawings = {
            "map": plane,
            "distances": charts.heat_map(found, part),
            "base": charts.base_bars(found, part),
        }
        for name, drawing in drawings.items():
            for suffix in (".svg", ".png"):
                save_drawing(drawing, folder / f"{name}{suffix}")
        return folder

    def _keep(self, found: Comparison) -> None:
        with self._lock:
            self._comparison, self._histogram = found, None
            self.n_results += 1
