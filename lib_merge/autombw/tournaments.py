"""Tournaments on disk: made, opened, listed, checked, and what they will take."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lib_merge.autombw._files import folder_name, read_json, write_json
from lib_merge.autombw.checks import check_before_start, disk_need_bytes
from lib_merge.autombw.estimate import Estimate, time_words
from lib_merge.autombw.preflight import new_settings
from lib_merge.autombw.settings import StudySettings
from lib_merge.autombw.space import Axis
from lib_merge.autombw.tournament import KINDS, POOL, TREE, Tournament
from lib_merge.errors import InputError, StudyError

_log = logging.getLogger(__name__)

POOL_METHOD = "weighted_mean"

FORMAT = "mergelab-tournament"
VERSION = 1


def create_tournament(
    data_dir: Path,
    name: str,
    models: Sequence[str],
    *,
    kind: str = TREE,
    method: str = "weighted_sum",
    folders: Sequence[Path] = (),
    adapt: Callable[[StudySettings], StudySettings] = lambda settings: settings,
    **options: Any,
) -> Tournament:
    """Make a tournament; nothing is rendered yet.

    Args:
        data_dir: Where studies and tournaments are kept.
        name: Its name.
        models: Model files, as paths or as names in `folders`; at least three.
        kind: tree or pool.
        method: How pairs are merged; a pool is always a weighted mean.
        folders: Where checkpoints lie.
        adapt: Changes the settings of every node.
        options: Fields of `StudySettings`.

    Raises:
        InputError: Too few models, or a model is given twice.
        StudyError: A tournament of this name exists.
        RecipeError: Models that do not fit each other.
    """
    folder = data_dir / "tournaments" / folder_name(name)
    if (folder / "tournament.json").exists():
        raise StudyError(
            f"A tournament named '{name}' exists in {folder}; resume it, or choose "
            "another name."
        )
    made = plan_tournament(
        folder,
        name,
        models,
        kind=kind,
        method=method,
        folders=folders,
        adapt=adapt,
        **options,
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "tournament.json", _to_json(made))
    return made


def plan_tournament(
    folder: Path,
    name: str,
    models: Sequence[str],
    *,
    kind: str,
    method: str,
    folders: Sequence[Path],
    adapt: Callable[[StudySettings], StudySettings],
    **options: Any,
) -> Tournament:
    """The same as `create_tournament`, without writing anything."""
    if kind not in KINDS:
        raise InputError(f"A tournament is a tree or a pool, not '{kind}'.")
    if len(models) < 3:
        raise InputError(
            f"A tournament needs at least three models, not {len(models)}; two make a "
            "study."
        )
    first = new_settings(name, "weighted_sum", models[:2], folders=folders, **options)
    # Every other model is held against the first: same architecture, and not the same.
    paths = [*first.models]
    for other in models[2:]:
        pair = new_settings(
            name, "weighted_sum", [first.models[0], other], folders=folders, **options
        )
        paths.append(pair.models[1])
    _check_all_differ(paths)
    if kind == POOL:
        template = _pool_settings(first, paths)
    else:
        template = new_settings(name, method, paths[:2], folders=folders, **options)
    template = adapt(template)
    return Tournament(folder, name, kind, tuple(paths), template)


def _check_all_differ(paths: Sequence[str]) -> None:
    twice = sorted({Path(p).name for p in paths if paths.count(p) > 1})
    if twice:
        raise InputError(f"{', '.join(twice)} takes part twice; name every model once.")


def _pool_settings(first: StudySettings, paths: Sequence[str]) -> StudySettings:
    """One study over the weights of all models."""
    names = [f"weight@{i}" for i in range(1, len(paths) + 1)]
    return replace(
        first,
        method=POOL_METHOD,
        param="weight",
        models=tuple(paths),
        ranges=(),
        axes=tuple(Axis(name, 0.0, 1.0, param=name, default=1.0) for name in names),
    )


def open_tournament(folder: Path) -> Tournament:
    """Open a tournament's folder.

    Raises:
        StudyError: There is none, or its file is damaged.
    """
    path = folder / "tournament.json"
    try:
        data = read_json(path)
        if data["format"] != FORMAT or data["version"] != VERSION:
            raise ValueError(f"format {data['format']} {data['version']}")
        return Tournament(
            folder=folder,
            name=str(data["name"]),
            kind=str(data["kind"]),
            models=tuple(data["models"]),
            template=StudySettings.from_json(data["template"], where=str(path)),
        )
    except FileNotFoundError as fault:
        raise StudyError(f"{folder} holds no tournament.") from fault
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise StudyError(f"{path} cannot be read: {fault}.") from fault


def find_tournament(data_dir: Path, name: str) -> Tournament:
    """Open a tournament by its name, or by its folder.

    Raises:
        StudyError: There is none of this name.
    """
    for folder in (data_dir / "tournaments" / folder_name(name), Path(name)):
        if (folder / "tournament.json").is_file():
            return open_tournament(folder)
    known = ", ".join(t.name for t in list_tournaments(data_dir)) or "none"
    raise StudyError(f"There is no tournament '{name}' in {data_dir}. Known: {known}.")


def list_tournaments(data_dir: Path) -> tuple[Tournament, ...]:
    """Every tournament under `data_dir`, by name."""
    found = []
    for path in sorted((data_dir / "tournaments").glob("*/tournament.json")):
        try:
            found.append(open_tournament(path.parent))
        except StudyError as fault:
            _log.warning("%s", fault)
    return tuple(found)


def _to_json(tournament: Tournament) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "name": tournament.name,
        "kind": tournament.kind,
        "models": list(tournament.models),
        "template": tournament.template.to_json(),
    }


def check_tournament(tournament: Tournament) -> tuple[str, ...]:
    """Raise unless the first node can run and there is room for all.

    Returns:
        Warnings.

    Raises:
        InputError: Every error at once.
    """
    node = tournament.rounds()[0].nodes[0]
    settings = replace(tournament.settings(node), checkpoint=None)
    return check_before_start(settings, tournament.data_dir)


def lines(tournament: Tournament) -> Iterator[str]:
    """The plan, and how far it is, for people."""
    for number, one in enumerate(tournament.rounds(), 1):
        for node in one.nodes:
            result = tournament.result(node)
            state = "" if result is None else f"  {result.best.score:.4f}"
            names = " + ".join(entrant.name for entrant in node.entrants)
            yield f"round {number}: {node.name} = {names}{state}"
        if one.waiting is not None:
            yield f"round {number}: {one.waiting.name} waits"


def outlook(tournament: Tournament, estimate: Estimate) -> str:
    """What all nodes together take, from one node's estimate."""
    n_nodes = sum(len(one.nodes) for one in tournament.rounds())
    model = max(Path(path).stat().st_size for path in tournament.models)
    pictures = disk_need_bytes(tournament.template)
    budget = tournament.template.stopping.time_budget_s
    node_s = estimate.total_s
    if budget is not None:
        node_s = min(node_s, budget + estimate.held_out_s)
    return (
        f"{n_nodes} studies of {time_words(node_s)} make {time_words(n_nodes * node_s)}"
        f" at most; {n_nodes} checkpoints and their pictures take "
        f"{max(1, n_nodes * (model + pictures) >> 20)} MiB."
    )
