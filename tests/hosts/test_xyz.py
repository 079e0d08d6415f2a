"""X/Y/Z plots over merges inside the fake WebUIs, and what their pictures say."""

from __future__ import annotations

import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from lib_merge.core.recipe import Recipe, Setting, simple_recipe
from lib_merge.errors import BusyError
from lib_merge.formats.short_form import MERGE_FIELD, RECIPE_FIELD
from lib_merge.hosts import detect_host
from lib_merge.hosts._gate import Gate
from lib_merge.hosts._infotext import tell
from lib_merge.hosts._xyz import add_axes
from lib_merge.ui.grids import MergeGrid, axes_of
from lib_merge.ui.workspace import Workspace
from tests.hosts.conftest import FAKES, MakeFake
from tests.support.fake_webui import FakeWebUi
from tests.support.fake_xyz import OldAxisOption, options_of, run_grid, script_data

LEAD = "[MergeLab] "


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


class Plot:
    """A fake WebUI with the plot and our axes in it."""

    def __init__(self, fake: FakeWebUi) -> None:
        self.fake = fake
        fake.state.job_timestamp = "1"  # type: ignore[attr-defined]
        fake.step_s = 0.0
        host = detect_host()
        assert host is not None
        self.workspace = Workspace(host)
        self.grid = self.workspace.grid(host.grid_jobs)  # type: ignore[attr-defined]
        self.data = script_data()
        add_axes(self.data, axes_of(self.grid), self.grid)
        self.options = {option.label: option for option in options_of(self.data)}

    def recipe(self, alpha: float, method: str = "weighted_sum") -> Recipe:
        """A merge of a and b."""
        paths = tuple(str(self.fake.models / f"{n}.safetensors") for n in "ab")
        return simple_recipe(method, paths, {"alpha": Setting(alpha)})

    def load(self, recipe: Recipe) -> None:
        """What Merge and load does."""
        self.workspace.load(recipe)
        job = self.workspace.merging.job
        assert job is not None
        job.wait(60)
        assert self.workspace.live.recipe() == recipe

    def job(self) -> Any:
        """A user's job."""
        job = self.fake.job_type(prompt="a cat", steps=2, seed=3)
        job.scripts = types.SimpleNamespace(alwayson_scripts=[])
        return job

    def picture(self, job: Any) -> Any:
        """A picture with its data, as the always-on script leaves it."""
        self.grid.before_picture()
        job.extra_generation_params = getattr(job, "extra_generation_params", {})
        tell(job, self.grid.picture_fields())
        fields = dict(job.extra_generation_params)
        return fields, self.fake.process_images(job).images[0].tobytes()

    def run(self, *axes: tuple[str, str]) -> list[Any]:
        """A grid, in a job of its own under the host's lock."""
        with self.fake.lock:
            chosen = [(self.options[LEAD + label], text) for label, text in axes]
            return run_grid(self.job(), chosen, self.picture)

    def single(self) -> Any:
        """Another job's picture."""
        self.fake.state.job_timestamp += "1"  # type: ignore[attr-defined]
        with self.fake.lock:
            return self.picture(self.job())

    def settle(self) -> None:
        """Wait until the merge from before is back."""
        end = time.monotonic() + 30
        while self.grid.is_open:
            assert time.monotonic() < end, "the former merge was never put back"
            time.sleep(0.01)


@pytest.fixture
def make_plot(make_fake: MakeFake) -> Callable[[str], Plot]:
    return lambda host_id: Plot(make_fake(host_id))


@pytest.mark.parametrize("host_id", list(FAKES))
def test_every_cell_is_its_merge_and_the_former_one_is_back(
    make_plot: Callable[[str], Plot], host_id: str
) -> None:
    plot = make_plot(host_id)
    expected = {}
    for alpha in (0.25, 0.5, 0.75):
        plot.load(plot.recipe(alpha))
        expected[alpha] = plot.single()[1]
    before = plot.recipe(0.25)
    plot.load(before)
    cells = plot.run(("alpha", "0.5, 0.75, 0.25"))
    assert [pixels for _, pixels in cells] == [
        expected[alpha] for alpha in (0.5, 0.75, 0.25)
    ]
    digests = [fields[RECIPE_FIELD] for fields, _ in cells]
    assert digests[0] == plot.recipe(0.5).digest()
    assert "alpha=0.75" in cells[1][0][MERGE_FIELD]
    plot.settle()
    assert plot.workspace.live.recipe() == before
    assert plot.single()[1] == expected[0.25]


def test_a_job_that_waited_longer_than_we_did_gets_the_former_merge(
    make_plot: Callable[[str], Plot], monkeypatch: pytest.MonkeyPatch
) -> None:
    plot = make_plot("a1111")
    before = plot.recipe(0.25)
    plot.load(before)
    expected = plot.single()[1]
    jobs = plot.grid._jobs
    monkeypatch.setattr(type(jobs), "behind", lambda self, work: None)
    plot.run(("alpha", "0.75"))
    assert plot.grid.is_open
    fields, pixels = plot.single()
    assert pixels == expected
    assert fields[RECIPE_FIELD] == before.digest()
    assert not plot.grid.is_open


def test_several_axes_make_one_merge_a_cell(
    make_plot: Callable[[str], Plot], monkeypatch: pytest.MonkeyPatch
) -> None:
    plot = make_plot("a1111")
    plot.load(plot.recipe(0.25))
    merged: list[Recipe] = []
    load = plot.grid._load

    def count(recipe: Recipe) -> None:
        merged.append(recipe)
        load(recipe)

    monkeypatch.setattr(plot.grid, "_load", count)
    plot.run(("alpha", "0.5, 1"), ("Method", "slerp, weighted_sum"))
    plot.settle()
    methods = [recipe.nodes[-1].method for recipe in merged]  # type: ignore[union-attr]
    assert methods[:4] == ["slerp", "weighted_sum", "slerp", "weighted_sum"]
    assert len(merged) == 5
    assert merged[4] == plot.recipe(0.25)


def test_nothing_loaded_is_told_and_a_recipe_needs_nothing_loaded(
    make_plot: Callable[[str], Plot],
) -> None:
    plot = make_plot("a1111")
    plain = plot.single()[1]
    with pytest.raises(RuntimeError, match="No merge is loaded"):
        plot.run(("alpha", "0.5"))
    plot.settle()
    plot.workspace.save_recipe(plot.recipe(0.5), "kept")
    ((fields, pixels),) = plot.run(("Recipe", "kept"))
    assert fields[RECIPE_FIELD] == plot.recipe(0.5).digest()
    plot.settle()
    assert pixels != plain
    assert plot.workspace.live.recipe() is None
    fields, pixels = plot.single()
    assert fields == {}
    assert pixels == plain


@pytest.mark.parametrize(
    ("label", "text", "said"),
    [
        ("alpha", "0.5, 7", "outside -1 to 2"),
        ("density", "0.5", "no parameter 'density'"),
        ("Method", "weighted", "weighted"),
        ("Method", "add_difference", "does not take 2 models"),
        ("Preset", "mountain", "no preset 'mountain'"),
        ("Recipe", "gone", "no recipe 'gone'"),
        ("Block weights", "IN99=1", "IN99"),
        ("Settings", "alpha", "NAME=VALUE"),
    ],
)
def test_a_value_that_is_none_ends_the_grid_before_its_first_picture(
    make_plot: Callable[[str], Plot], label: str, text: str, said: str
) -> None:
    plot = make_plot("a1111")
    before = plot.recipe(0.25)
    plot.load(before)
    n_jobs = len(plot.fake.jobs)
    with pytest.raises(RuntimeError, match="MergeLab") as caught:
        plot.run((label, text))
    assert said in str(caught.value)
    assert len(plot.fake.jobs) == n_jobs
    plot.settle()
    assert plot.workspace.live.recipe() == before


def test_grid_and_merges_of_the_tab_keep_out_of_each_others_way(
    make_plot: Callable[[str], Plot],
) -> None:
    plot = make_plot("a1111")
    plot.load(plot.recipe(0.25))
    refused: list[str] = []

    def picture(job: Any) -> Any:
        try:
            plot.workspace.load(plot.recipe(0.9))
        except BusyError as fault:
            refused.append(str(fault))
        return plot.picture(job)

    with plot.fake.lock:
        option = plot.options[f"{LEAD}alpha"]
        run_grid(plot.job(), [(option, "0.5")], picture)
    plot.settle()
    assert "X/Y/Z plot" in refused[0]
    release = threading.Event()
    plot.workspace.merging.start("busy", lambda progress: str(release.wait(20)))
    with pytest.raises(RuntimeError, match="A merge is running"):
        plot.run(("alpha", "0.5"))
    release.set()
    assert not plot.grid.is_open


def test_axes_are_offered_once_and_older_scripts_get_what_they_know(
    make_plot: Callable[[str], Plot],
) -> None:
    plot = make_plot("a1111")
    axes = axes_of(plot.grid)
    assert add_axes(plot.data, axes, plot.grid) == 0
    labels = [option.label for option in options_of(plot.data)]
    assert len(labels) == len(set(labels)) == len(axes) + 1
    assert add_axes(script_data()[:1], axes, plot.grid) == 0
    assert add_axes([], axes, plot.grid) == 0
    assert add_axes(script_data(OldAxisOption), axes, plot.grid) == len(axes)
    choices = plot.options[f"{LEAD}Method"].choices()
    assert "Weighted sum" in choices


def test_pictures_without_a_merge_say_nothing_and_lose_older_words() -> None:
    job = types.SimpleNamespace(
        extra_generation_params={"Size": "1x1", RECIPE_FIELD: "old"}
    )
    tell(job, {})
    assert job.extra_generation_params == {"Size": "1x1"}
    tell(job, {RECIPE_FIELD: "new"})
    assert job.extra_generation_params[RECIPE_FIELD] == "new"
    tell(object(), {RECIPE_FIELD: "new"})


def test_inside_a_job_the_lock_is_not_taken_again_and_outside_it_is() -> None:
    lock = threading.Lock()
    gate = Gate(lock)
    with lock, gate.inside(), gate.inside():
        assert gate.run(lambda: "done") == "done"
    with gate.hold():
        assert lock.locked()


def test_grid_satisfies_its_port(make_plot: Callable[[str], Plot]) -> None:
    assert isinstance(make_plot("forge").grid, MergeGrid)
