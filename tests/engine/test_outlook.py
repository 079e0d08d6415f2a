"""The outlook on a run agrees with the run."""

from __future__ import annotations

import pytest

from lib_merge.core.recipe import simple_recipe
from lib_merge.engine.outlook import outlook_of
from lib_merge.engine.planning import plan_recipe
from lib_merge.engine.run import RunOptions, run_plan
from lib_merge.errors import InputError
from tests.engine.test_pools import doubles, files, folder  # noqa: F401
from tests.engine.test_run import MemorySink

pytestmark = pytest.mark.usefixtures("doubles")


@pytest.mark.parametrize(
    ("method", "n_passes"),
    [("uniform_soup", 1), ("by_norm", 2)],
    ids=["one pass", "two passes"],
)
def test_outlook_tells_passes_and_bytes(folder, method, n_passes):  # noqa: F811
    plan = plan_recipe(simple_recipe(method, files(folder)))
    outlook = outlook_of(plan, RunOptions(n_threads=2))
    report = run_plan(plan, MemorySink(plan), RunOptions(n_threads=2))
    assert outlook.n_passes == n_passes
    assert outlook.n_threads == report.n_threads
    assert outlook.n_bytes_read == report.bytes_read
    assert outlook.memory_bytes <= RunOptions().budget_bytes


def test_outlook_keeps_to_the_budget(folder):  # noqa: F811
    plan = plan_recipe(simple_recipe("by_norm", files(folder)))
    small = outlook_of(plan, RunOptions(budget_bytes=32 << 20))
    assert small.memory_bytes <= 32 << 20
    with pytest.raises(InputError, match="is too small for 5 models"):
        outlook_of(plan, RunOptions(budget_bytes=10_000))
