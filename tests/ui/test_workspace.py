"""What outlives a page: the model that the user had before the first merge."""

from __future__ import annotations

from lib_merge.core.recipe import Setting, simple_recipe
from lib_merge.ui.workspace import Workspace
from tests.ui.fakes import FakeHost


def _finish(workspace: Workspace) -> str:
    job = workspace.merging.job
    assert job is not None
    job.wait(60)
    return str(job.view().message)


def test_restore_gives_back_the_model_that_was_loaded_before(host: FakeHost) -> None:
    workspace = Workspace(host)
    a, b = (host.catalog.folder / f"{name}.safetensors" for name in "ab")
    host.loader.load(b)
    for alpha in (0.5, 0.1):
        settings = {"alpha": Setting(alpha)}
        workspace.load(simple_recipe("weighted_sum", (str(a), str(b)), settings))
        _finish(workspace)
    assert host.loader.loaded() == a
    assert workspace.live.is_merged()
    workspace.restore()
    assert "b.safetensors is loaded with its own weights" in _finish(workspace)
    assert host.loader.loaded() == b
    assert not workspace.live.is_merged()
