"""Records of trials: old ones read, early ends kept, cheap rungs never counted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from lib_merge.autombw.objective import LivePoint, Objective
from lib_merge.autombw.panel import Panel
from lib_merge.autombw.records import (
    COMPLETE,
    PRUNED,
    UNNAMED,
    ImageScore,
    TrialRecord,
    load_record,
    save_record,
)
from lib_merge.autombw.rescoring import ScoreKeeper
from lib_merge.autombw.settings import shots
from lib_merge.autombw.study import create_study
from tests.support.fake_scorer import FakeScorer
from tests.support.fake_study_host import BLOCKS, FakeStudyHost, fake_settings

IMAGE = ImageScore("p00_s0.png", "cat", 11, "a cat", {"fake": 0.5, "two": -3.0}, 0.62)
RECORD = TrialRecord(4, 3, 1, "", {"M00": 0.25}, COMPLETE, 0.62, (IMAGE,))


def test_record_round_trips_with_every_field(tmp_path: Path) -> None:
    """Raw values by scorer, rung, diversity and worker too."""
    record = replace(RECORD, state=PRUNED, rung="small", diversity=0.3, worker="w2")
    save_record(tmp_path, record)
    assert load_record(tmp_path) == record
    assert record.images[0].raw == 0.5


def test_record_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """It had one raw value without a name, and no rung, diversity or worker."""
    data = asdict(RECORD)
    for name in ("rung", "diversity", "worker"):
        del data[name]
    data["images"] = [asdict(IMAGE) | {"raw": 0.5}]
    del data["images"][0]["raws"]
    (tmp_path / "record.json").write_text(json.dumps(data))
    read = load_record(tmp_path)
    assert read == replace(RECORD, images=(replace(IMAGE, raws={UNNAMED: 0.5}),))


def test_only_whole_trials_on_whole_payloads_count() -> None:
    """A pruned trial's score is an estimate, a cheap rung's another measure."""
    assert RECORD.is_complete
    assert not replace(RECORD, state=PRUNED).is_complete
    assert not replace(RECORD, rung="small").is_complete


@pytest.mark.parametrize(
    ("n_wanted", "n_images", "n_asked"),
    [(1, 1, 1), (2, 2, 2), (99, 3, 2)],
    ids=["stopped at once", "stopped later", "never stopped"],
)
def test_trial_ends_where_go_on_says_no(
    n_wanted: int, n_images: int, n_asked: int, tmp_path: Path
) -> None:
    """It is asked after every batch but the last, with all pictures so far."""
    host = FakeStudyHost(tmp_path, max_batch=1)
    settings = fake_settings()
    panel = Panel(settings.judges, find=lambda _: FakeScorer())
    objective = Objective(
        host,
        LivePoint(host, host.merger, settings),
        panel,
        ScoreKeeper(create_study(tmp_path, settings), panel.ranges),
        gate=lambda: None,
        on_image=lambda path, scored: None,
    )
    asked: list[int] = []

    def go_on(images: Sequence[ImageScore]) -> bool:
        asked.append(len(images))
        return len(images) < n_wanted

    point = dict.fromkeys(BLOCKS, 0.5)
    found = objective.measure(point, shots(settings), tmp_path / "t", go_on=go_on)
    assert len(found.images) == n_images
    assert found.is_whole is (n_images == 3)
    assert asked == list(range(1, n_asked + 1))
    assert host.renderer.n_rendered == n_images
    assert all(set(image.raws) == {"fake"} for image in found.images)
