"""The whole exception tree of MergeLab, in one file.

    MergeError                  anything we tell the user about
     +-- InputError             what the user gave is wrong; nothing was started
     |    +-- CheckpointError   a model file: missing, truncated, hostile, unknown
     |    +-- RecipeError       a recipe or plan; `problems` lists every fault found
     |    +-- UnknownIdError    a method, architecture, scorer, block ... id
     |    +-- PayloadError      a payload file or one of its fields
     |    +-- OutputError       the place where a result should go
     |    +-- BusyError         something else is at work; wait or stop it first
     +-- ResourceError          the machine cannot do it now
     |    +-- DiskFullError     not enough room for the output
     |    +-- MemoryLimitError  a device or the host ran out of memory
     +-- NonFiniteError         NaN or infinity where numbers must be finite
     +-- Cancelled              the user asked to stop; not a fault
     +-- HostError              the WebUI or pipeline refused or failed
     +-- ScorerError            a scorer cannot be loaded or failed
     +-- StudyError             a study cannot be opened, resumed or finished
     +-- DeclarationError       a plugin file declares something wrong (a bug)

Every message says what was wrong with its value, where, and what to do next.
"""

from __future__ import annotations

from collections.abc import Sequence


class MergeError(Exception):
    """Base of every error that MergeLab raises on purpose."""


class InputError(MergeError):
    """What the user gave cannot be used; no work was started."""


class CheckpointError(InputError):
    """A model file is missing, truncated, hostile or of an unknown kind."""


class RecipeError(InputError):
    """A recipe or its plan has faults, all of them listed.

    Args:
        problems: One full sentence each: what, where, what to do next.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems: tuple[str, ...] = tuple(problems)
        super().__init__("\n".join(self.problems))


class UnknownIdError(InputError):
    """An id is in no registry; the message names the nearest one."""


class PayloadError(InputError):
    """A payload file cannot be read or one of its fields is unusable."""


class OutputError(InputError):
    """The output path cannot be written: exists as an input, no folder, no right."""


class BusyError(InputError):
    """Something else is at work, or nothing is that could be stopped."""


class ResourceError(MergeError):
    """The machine lacks something that the work needs."""


class DiskFullError(ResourceError):
    """The disk of the output has not enough room."""


class MemoryLimitError(ResourceError):
    """A device, or the host's memory, is exhausted."""


class NonFiniteError(MergeError):
    """A NaN or an infinity stands where numbers must be finite."""


class Cancelled(MergeError):
    """The user asked to stop. Nothing partial is left behind."""


class HostError(MergeError):
    """The WebUI, or the standalone pipeline, refused or failed."""


class ScorerError(MergeError):
    """A scorer cannot be loaded, or failed on a picture."""


class StudyError(MergeError):
    """A study cannot be created, opened, resumed or finished."""


class DeclarationError(MergeError):
    """A plugin file (method, architecture, scorer, host) is declared wrongly."""
