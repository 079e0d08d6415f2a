"""The panel of scorers: loaded late, unloaded for the image model, retried once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image

from lib_merge.autombw.objective import LivePoint, Objective
from lib_merge.autombw.panel import CudaGauge, Panel
from lib_merge.autombw.rescoring import ScoreKeeper, study_scoring
from lib_merge.autombw.runner import StudyRunner
from lib_merge.autombw.scoring import Judge, ScoringSettings
from lib_merge.autombw.settings import shots
from lib_merge.autombw.study import Study, create_study, open_study
from lib_merge.core.ports import Progress, ScorerCard
from lib_merge.errors import InputError, MemoryLimitError, ScorerError, UnknownIdError
from tests.support.fake_scorer import FakeScorer
from tests.support.fake_study_host import BLOCKS, FakeStudyHost, fake_settings

PICTURES = [Image.new("RGB", (4, 4)), Image.new("RGB", (4, 4))]


@dataclass
class Toy:
    """A scorer that notes what is done with it."""

    id: str
    raw: float = 1.0
    range: tuple[float, float] = (0.0, 4.0)
    events: list[str] = field(default_factory=list)
    faults: list[Exception] = field(default_factory=list)
    load_fault: Exception | None = None
    loaded_with: tuple[object, ...] = ()
    card = ScorerCard("nothing", "none", "none")

    @property
    def label(self) -> str:
        return self.id.title()

    def unavailable_reason(
        self,
        *,
        weights: Path | None = None,
        options: Mapping[str, str] | None = None,
    ) -> str | None:
        return None

    def load(
        self,
        *,
        device: str = "cpu",
        weights: Path | None = None,
        progress: Progress | None = None,
        options: Mapping[str, str] | None = None,
    ) -> Toy:
        if self.load_fault is not None:
            raise self.load_fault
        self.events.append(f"load {self.id}")
        self.loaded_with = (device, weights, options)
        return self

    def score(
        self, images: Sequence[Image.Image], prompts: Sequence[str]
    ) -> list[float]:
        if self.faults:
            raise self.faults.pop(0)
        self.events.append(f"score {self.id} {len(images)}")
        return [self.raw] * len(images)

    def close(self) -> None:
        self.events.append(f"close {self.id}")


class Tight:
    """A gauge that knows after the first picture that two do not fit."""

    def __init__(self) -> None:
        self.n_rendered = 0

    def begin(self) -> None:
        pass

    def end(self) -> None:
        self.n_rendered += 1

    def fits(self) -> bool:
        return self.n_rendered == 0


def two() -> tuple[list[str], dict[str, Toy]]:
    """Two toys that write into one list."""
    events: list[str] = []
    return events, {name: Toy(name, events=events) for name in ("one", "two")}


JUDGES = (Judge("one"), Judge("two", 0.5, "w.pt", (("label", "good"),)))


def test_scorers_are_loaded_when_first_asked_and_judge_whole_batches() -> None:
    """With their weights, device and options; a table a picture."""
    events, toys = two()
    panel = Panel(JUDGES, device="cuda:1", memory="keep", find=toys.__getitem__)
    assert events == []
    assert panel.score(PICTURES, ["a", "b"]) == [{"one": 1.0, "two": 1.0}] * 2
    panel.score(PICTURES[:1], ["a"])
    assert events == [
        *("load one", "score one 2", "load two", "score two 2"),
        *("score one 1", "score two 1"),
    ]
    assert toys["one"].loaded_with == ("cuda:1", None, None)
    assert toys["two"].loaded_with == ("cuda:1", Path("w.pt"), {"label": "good"})
    assert panel.unload()
    assert not panel.unload()
    assert events[-2:] == ["close two", "close one"]


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        ("keep", ["load", "score", "score", "score"]),
        ("unload", ["load", "score", "close"] * 2 + ["load", "score"]),
        ("auto", ["load", "score", "close", "load", "score", "close", "load", "score"]),
    ],
)
def test_memory_policy_says_what_becomes_of_scorers_between_pictures(
    memory: str, expected: list[str]
) -> None:
    """auto unloads once the gauge has seen that both do not fit."""
    toy = Toy("one")
    panel = Panel(JUDGES[:1], memory=memory, find=lambda _: toy, gauge=Tight())
    for _ in range(3):
        with panel.rendering():
            pass
        panel.score(PICTURES, ["a", "b"])
    assert [event.split()[0] for event in toy.events] == expected


def test_scorers_stay_while_both_fit() -> None:
    """auto is keep where there is room."""

    class Roomy(Tight):
        def fits(self) -> bool:
            return True

    toy = Toy("one")
    panel = Panel(JUDGES[:1], find=lambda _: toy, gauge=Roomy())
    for _ in range(3):
        with panel.rendering():
            pass
        panel.score(PICTURES, ["a", "b"])
    assert "close one" not in toy.events


def test_scorer_out_of_memory_is_tried_once_more_alone() -> None:
    """Everything is unloaded first; a second time is the trial's fault."""
    events, toys = two()
    panel = Panel(JUDGES, memory="keep", find=toys.__getitem__)
    panel.warm_up()
    toys["two"].faults = [MemoryLimitError("full")]
    assert panel.score(PICTURES, ["a", "b"])[0]["two"] == 1.0
    assert events[-4:] == ["close two", "close one", "load two", "score two 2"]
    toys["two"].faults = [MemoryLimitError("full"), MemoryLimitError("still full")]
    with pytest.raises(MemoryLimitError, match="still full"):
        panel.score(PICTURES, ["a", "b"])


def test_cuda_out_of_memory_of_torch_counts_too() -> None:
    """A scorer's library raises torch's own class."""
    torch = pytest.importorskip("torch")
    toy = Toy("one", faults=[torch.cuda.OutOfMemoryError("CUDA out of memory")])
    panel = Panel(JUDGES[:1], find=lambda _: toy)
    assert panel.score(PICTURES, ["a", "b"]) == [{"one": 1.0}] * 2


def test_wrong_weights_stop_the_study_before_its_first_trial() -> None:
    """No later trial would fare better."""
    toy = Toy("one", load_fault=ScorerError("w.pt holds no weights."))
    with pytest.raises(InputError, match=r"The scorer one cannot be used: w\.pt holds"):
        Panel(JUDGES[:1], find=lambda _: toy).warm_up()


def test_unknown_scorer_and_wrong_number_of_scores_are_refused() -> None:
    """One clear error each."""
    with pytest.raises(UnknownIdError, match="Unknown scorer 'nobody'"):
        Panel((Judge("nobody"),))

    class Short(Toy):
        def score(
            self, images: Sequence[Image.Image], prompts: Sequence[str]
        ) -> list[float]:
            return [1.0]

    with pytest.raises(ScorerError, match="one gave 1 scores for 2 pictures"):
        Panel(JUDGES[:1], find=lambda _: Short("one")).score(PICTURES, ["a", "b"])


def test_gauge_compares_a_pictures_peak_with_what_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Free memory of the device and of torch's own reserve, with a tenth to spare."""
    cuda = pytest.importorskip("torch").cuda
    state = {"allocated": 100, "peak": 0, "free": 50, "reserved": 130}
    monkeypatch.setattr(cuda, "reset_peak_memory_stats", lambda _: None)
    monkeypatch.setattr(cuda, "memory_allocated", lambda _: state["allocated"])
    monkeypatch.setattr(cuda, "max_memory_allocated", lambda _: state["peak"])
    monkeypatch.setattr(cuda, "memory_reserved", lambda _: state["reserved"])
    monkeypatch.setattr(cuda, "mem_get_info", lambda _: (state["free"], 999))
    gauge = CudaGauge("cuda:0")
    assert gauge.fits()
    gauge.begin()
    state["peak"] = 170
    gauge.end()
    assert gauge.fits()  # 50 + 30 free, 77 wanted
    state["allocated"] = 104
    assert not gauge.fits()  # 76 free


def test_image_model_out_of_memory_is_tried_once_more_without_scorers(
    tmp_path: Path,
) -> None:
    """And scorers make room ahead of every later picture."""
    host = FakeStudyHost(tmp_path, max_batch=1)
    settings = fake_settings()
    fake = FakeScorer()
    panel = Panel(settings.judges, find=lambda _: fake)
    panel.warm_up()
    objective = Objective(
        host,
        LivePoint(host, host.merger, settings),
        panel,
        ScoreKeeper(create_study(tmp_path, settings), panel.ranges),
        gate=lambda: None,
        on_image=lambda path, scored: None,
    )

    def crowded(n_rendered: int) -> None:
        if fake.n_closed == 0:
            raise MemoryLimitError("no room for the picture")

    host.renderer.before_render = crowded
    point = dict.fromkeys(BLOCKS, 0.5)
    found = objective.measure(point, shots(settings), tmp_path / "t")
    assert len(found.images) == 3
    assert fake.n_closed == 3

    def always(n_rendered: int) -> None:
        raise MemoryLimitError("no room at all")

    host.renderer.before_render = always
    panel.unload()
    with pytest.raises(MemoryLimitError, match="no room at all"):
        objective.measure(point, shots(settings), tmp_path / "u")


def test_study_of_two_scorers_is_scaled_on_its_first_trials_and_resumes_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every score is the frozen scoring's, also of the trials that froze it."""
    fake, toy = FakeScorer(), Toy("toy", raw=3.0)
    monkeypatch.setattr(
        "lib_merge.autombw.runner.find_scorer", {"fake": fake, "toy": toy}.__getitem__
    )
    scoring = ScoringSettings((Judge("fake"), Judge("toy", 0.5)), "z")

    def run(folder: Path, stop_after: int) -> Study:
        host = FakeStudyHost(folder)
        chosen = fake_settings(scoring=scoring, n_trials=6)
        study = create_study(folder, chosen)
        runner = StudyRunner(host, study, fake, merger=host.merger)
        host.renderer.after_render = stopper(runner, host, stop_after)
        runner.run()
        host.renderer.after_render = None
        study = open_study(study.folder)
        StudyRunner(host, study, fake, merger=host.merger).run()
        return open_study(study.folder)

    def stopper(
        runner: StudyRunner, host: FakeStudyHost, stop_after: int
    ) -> Callable[[int], None]:
        def check(_: int) -> None:
            if host.renderer.n_rendered >= stop_after:
                runner.stop()

        return check

    whole = run(tmp_path / "whole", 10**9)
    cut = run(tmp_path / "cut", 5)
    frozen = study_scoring(whole, {"fake": fake.range, "toy": toy.range})
    assert frozen.scales is not None
    assert frozen.scales["toy"].sd == 1.0
    for record in whole.records():
        for image in record.images:
            assert set(image.raws) == {"fake", "toy"}
            assert image.score == frozen.score(image.raws)
    points = [r.point for r in whole.records() if r.is_complete]
    assert points == [r.point for r in cut.records() if r.is_complete]
    assert whole.best().score == cut.best().score  # type: ignore[union-attr]
