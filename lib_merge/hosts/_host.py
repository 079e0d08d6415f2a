"""A WebUI as the set of ports that everything else receives."""

from __future__ import annotations

from lib_merge.core.grid import GridJobs
from lib_merge.core.ports import Catalog, Devices, Jobs, Loader, Renderer
from lib_merge.core.user_settings import SettingsStore
from lib_merge.hosts._render import WebUiJobs, WebUiRenderer
from lib_merge.hosts._settings import WebUiSettings
from lib_merge.hosts._webui import WebUi, WebUiCatalog
from lib_merge.hosts._xyz import WebUiGridJobs


class WebUiDevices:
    """Where the host computes."""

    def __init__(self, ui: WebUi) -> None:
        self._ui = ui

    def device(self) -> str:
        """The host's compute device, e.g. "cpu" or "cuda:0"."""
        return str(self._ui.devices.device)


class WebUiHost:
    """Every port of one WebUI.

    Args:
        host_id: Permanent id.
        label: What people call it, with its version.
        ui: Its modules.
        loader: Its way with models.
    """

    def __init__(self, host_id: str, label: str, ui: WebUi, loader: Loader) -> None:
        catalog = WebUiCatalog(ui)
        jobs = WebUiJobs(ui)
        self.id = host_id
        self.label = label
        self.catalog: Catalog = catalog
        self.loader: Loader = loader
        self.renderer: Renderer = WebUiRenderer(ui, jobs, catalog.data_dir())
        self.devices: Devices = WebUiDevices(ui)
        self.jobs: Jobs = jobs
        self.grid_jobs: GridJobs = WebUiGridJobs(ui)
        self.settings: SettingsStore = WebUiSettings(ui)
