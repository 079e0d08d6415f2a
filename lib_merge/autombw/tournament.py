"""Tournaments: many models become one, by pairs and their winners, or as one pool.

In a tree every node is a study between two models whose winner is saved as a
checkpoint and feeds the next round. With an odd number of entrants one waits: the one
that scored best (in the first round, where nothing is scored, the last one). What is
done is read off the studies' folders, so that a tournament goes on after any accident.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lib_merge.autombw._files import folder_name
from lib_merge.autombw._lock import StudyLock, is_locked
from lib_merge.autombw.results import StudyResult
from lib_merge.autombw.settings import StudySettings
from lib_merge.autombw.study import Study, create_study, open_study
from lib_merge.errors import MergeError, StudyError

_log = logging.getLogger(__name__)

TREE, POOL = "tree", "pool"
KINDS = (TREE, POOL)

RunStudy = Callable[[Study], StudyResult | None]
"""Runs one node's study to its end; None when the user stopped it."""


@dataclass(frozen=True)
class Entrant:
    """A model that takes part in a round.

    Attributes:
        name: What people call it: a file's name or a node's.
        path: The checkpoint; of a node that is not done, where it will be.
        score: Its held-out score as a node's winner; None for the given models.
    """

    name: str
    path: str
    score: float | None = None


@dataclass(frozen=True)
class Node:
    """One study of a tournament.

    Attributes:
        name: Names the node and its study.
        entrants: What is merged.
        output: Where the winner is saved.
    """

    name: str
    entrants: tuple[Entrant, ...]
    output: Path


@dataclass(frozen=True)
class Round:
    """The nodes that do not wait for each other.

    Attributes:
        nodes: Them.
        waiting: Who is held over to the next round, or None.
    """

    nodes: tuple[Node, ...]
    waiting: Entrant | None = None


@dataclass(frozen=True)
class Tournament:
    """A tournament; frozen with its file.

    Attributes:
        folder: Where its file and the nodes' checkpoints are.
        name: Its name.
        kind: tree or pool.
        models: The given model files.
        template: What every node's study is told; its models and name are replaced.
    """

    folder: Path
    name: str
    kind: str
    models: tuple[str, ...]
    template: StudySettings

    @property
    def data_dir(self) -> Path:
        """Where its studies are."""
        return self.folder.parent.parent

    @property
    def lock_path(self) -> Path:
        """Held while it runs."""
        return self.folder / "tournament.lock"

    def study(self, node: Node) -> Study | None:
        """A node's study, or None while there is none."""
        folder = self.data_dir / "studies" / folder_name(node.name)
        return open_study(folder) if (folder / "settings.json").is_file() else None

    def result(self, node: Node) -> StudyResult | None:
        """A node's result, or None while its winner is not saved."""
        study = self.study(node)
        result = study.result() if study is not None else None
        is_saved = result is not None and result.checkpoint is not None
        return result if is_saved and node.output.is_file() else None

    def rounds(self) -> tuple[Round, ...]:
        """Every round as far as it can be told: who waits is open until scores are in.

        Of a round with open nodes the next ones are drawn with those nodes' outputs,
        the last entrant waiting.
        """
        entrants = tuple(Entrant(Path(m).stem, m) for m in self.models)
        if self.kind == POOL:
            return (Round((self._node(1, 1, entrants),)),)
        found: list[Round] = []
        while len(entrants) > 1:
            number = len(found) + 1
            waiting = _who_waits(entrants, found[-1].waiting if found else None)
            rest = [one for one in entrants if one is not waiting]
            pairs = zip(rest[::2], rest[1::2], strict=True)
            nodes = tuple(self._node(number, i, p) for i, p in enumerate(pairs, 1))
            found.append(Round(nodes, waiting))
            winners = tuple(self._winner(node) for node in nodes)
            entrants = winners if waiting is None else (*winners, waiting)
        return tuple(found)

    def _node(self, number: int, at: int, entrants: tuple[Entrant, ...]) -> Node:
        name = f"{self.name}-{number}.{at}"
        output = self.folder / f"{folder_name(name)}.safetensors"
        return Node(name, entrants, output)

    def _winner(self, node: Node) -> Entrant:
        result = self.result(node)
        score = result.best.score if result is not None else None
        return Entrant(node.name, str(node.output), score)

    def is_running(self) -> bool:
        """Whether some process runs it now."""
        return is_locked(self.lock_path)

    def last(self) -> Node:
        """The node whose winner is the tournament's."""
        return self.rounds()[-1].nodes[-1]

    def run(self, run_study: RunStudy) -> StudyResult | None:
        """Run every node that is left, round by round.

        A node that fails does not keep the others of its round from running.

        Args:
            run_study: Runs one study.

        Returns:
            The last node's result, or None when the user stopped it.

        Raises:
            StudyError: Nodes failed, or it is running elsewhere; run it again to go on.
        """
        with StudyLock(self.lock_path, self.name):
            for number in range(len(self.rounds())):
                faults = []
                for node in self.rounds()[number].nodes:
                    if self.result(node) is not None:
                        continue
                    try:
                        if run_study(self._open(node)) is None:
                            return None
                        self._check_saved(node)
                    except MergeError as fault:
                        _log.warning("Node %s failed: %s", node.name, fault)
                        faults.append(f"{node.name}: {fault}")
                if faults:
                    raise StudyError(
                        f"{len(faults)} nodes of tournament '{self.name}' failed; what "
                        "is done is kept, and running it again goes on.\n"
                        + "\n".join(faults)
                    )
        return self.result(self.last())

    def _open(self, node: Node) -> Study:
        study = self.study(node)
        if study is None:
            study = create_study(self.data_dir, self.settings(node))
        return study

    def _check_saved(self, node: Node) -> None:
        """Raise if a node's study ended without its checkpoint.

        Raises:
            StudyError: It did.
        """
        if self.result(node) is not None:
            return
        study = self.study(node)
        found = study.result() if study is not None else None
        note = found.note if found is not None else ""
        if study is not None:
            study.result_path.unlink(missing_ok=True)
        raise StudyError(f"the winner was not saved as {node.output.name}. {note}")

    def settings(self, node: Node) -> StudySettings:
        """What a node's study is told.

        Raises:
            RecipeError: Its models do not fit.
        """
        models = tuple(entrant.path for entrant in node.entrants)
        return replace(
            self.template,
            name=node.name,
            models=models,
            checkpoint=str(node.output),
        )


def _who_waits(entrants: Sequence[Entrant], last: Entrant | None) -> Entrant | None:
    """The best-scoring one of an odd number; the last where nothing is scored.

    Nobody waits twice in a row: whoever waited last plays now.
    """
    if len(entrants) % 2 == 0:
        return None
    scored = [one for one in entrants if one.score is not None and one != last]
    return max(scored, key=lambda one: one.score or 0.0) if scored else entrants[-1]
