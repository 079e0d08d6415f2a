"""MergeLab's settings inside a WebUI: the host's own settings, in a section of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lib_merge.core.user_settings import DEFAULTS, NAMES, UserSettings, text_of
from lib_merge.errors import HostError
from lib_merge.hosts._webui import WebUi, checkpoint_dir

PREFIX = "mergelab_"
"""What the host's names of our settings begin with."""

SECTION = ("mergelab", "MergeLab")
"""Id and title of our section in the host's settings."""


def add_options(shared: Any) -> None:
    """Declare our settings to the host; for its on_ui_settings callback.

    Args:
        shared: The host's `modules.shared`.
    """
    for name in NAMES:
        text = text_of(name)
        # Without a component the host takes a text box or a number by the default.
        option = shared.OptionInfo(getattr(DEFAULTS, name), text.label, section=SECTION)
        add_info = getattr(option, "info", None)
        if callable(add_info):
            add_info(text.info)
        shared.opts.add_option(PREFIX + name, option)


class WebUiSettings:
    """SettingsStore over the host's options.

    Args:
        ui: The host.
    """

    def __init__(self, ui: WebUi) -> None:
        self._ui = ui

    @property
    def place(self) -> str:
        """Where they are kept."""
        return "the WebUI's own settings, section MergeLab"

    def read(self) -> Mapping[str, object]:
        """What the host has; its defaults where our section was never declared."""
        options = self._ui.shared.opts
        return {
            name: getattr(options, PREFIX + name, getattr(DEFAULTS, name))
            for name in NAMES
        }

    def write(self, settings: UserSettings) -> None:
        """Set and save the host's options.

        Raises:
            HostError: They are frozen, or the host's file cannot be written.
        """
        shared = self._ui.shared
        try:
            for name in NAMES:
                shared.opts.set(PREFIX + name, getattr(settings, name))
            shared.opts.save(shared.config_filename)
        except (AssertionError, OSError) as fault:
            raise HostError(
                f"The WebUI does not store its settings ({fault}); start it without "
                "--freeze-settings, or look at its config.json."
            ) from fault

    def problems(self, settings: UserSettings) -> tuple[str, ...]:
        """A folder for merged models that the host would not list."""
        if not settings.outputs_dir:
            return ()
        folder = checkpoint_dir(self._ui)
        if folder in (chosen := folder / settings.outputs_dir).resolve().parents:
            return ()
        if chosen.resolve() == folder:
            return ()
        return (
            f"{text_of('outputs_dir').label} (MergeLab's settings): {chosen} lies "
            f"outside {folder}, so the WebUI would not list what is saved there; name "
            "a folder inside it.",
        )
