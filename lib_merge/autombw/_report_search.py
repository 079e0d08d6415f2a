"""The report's parts that say how the search went: curve, axes, leaders, settings."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence

from lib_merge.autombw import _svg, _svg_maps
from lib_merge.autombw._album import Album
from lib_merge.autombw._report_parts import signed, spread
from lib_merge.autombw._report_style import folded, paragraph, section, table
from lib_merge.autombw.gaps import prompt_scores
from lib_merge.autombw.importances import PED_ANOVA, Importances, importances
from lib_merge.autombw.leaderboard import (
    Leader,
    baselines,
    leaders,
    learning_curve,
    parallel_lines,
    pareto_front,
    rung_scores,
    weight_map,
    whole,
)
from lib_merge.autombw.payload import Payload
from lib_merge.autombw.records import TrialRecord
from lib_merge.autombw.study import Study, StudySettings

N_SHUFFLES = 15
"""Times that scores are shuffled to see what importance luck gives."""


def curve(study: Study, records: Sequence[TrialRecord]) -> str:
    """The learning curve."""
    points = learning_curve(records, study.settings.tally)
    parents = [(label, r.score or 0.0) for label, r in baselines(records)]
    words = (
        "Dots are trials, the line is the best so far, its band the 95 % interval over "
        "that trial's pictures; parents are dashed."
    )
    if any(point.is_estimate for point in points):
        words += (
            " Open dots are estimates: trials that were given up early or rendered "
            "cheaply. They are never the best."
        )
    shown = _svg.learning_curve(points, parents)
    return section("curve", "Learning curve", paragraph(words), shown)


def weights(point: Mapping[str, float], title: str) -> str:
    """A point as bars and as text."""
    pairs = ", ".join(f"{name}={value:.6g}" for name, value in point.items())
    return section(
        "weights",
        title,
        paragraph("0 is A, 1 is B. The text can be pasted into the block weights."),
        _svg.weight_bars(point, title),
        f"<pre>{html.escape(pairs)}</pre>",
    )


def axes(records: Sequence[TrialRecord]) -> str:
    """Importances, the map over trials and the parallel coordinates."""
    parts = []
    found = importances(records, n_shuffles=N_SHUFFLES)
    if found is not None:
        how = "PED-ANOVA" if found.method == PED_ANOVA else "rank correlation"
        words = f"By {how} over {found.n_trials} whole trials. {_luck_words(found)}"
        bars = _svg_maps.importance_bars(found)
        parts.append(section("importance", "Importances", paragraph(words), bars))
    shown = weight_map(records)
    if shown is not None:
        words = "Where the search looked: a column a trial, a row an axis."
        drawn = _svg_maps.weight_map(shown)
        title = "Block weights over trials"
        parts.append(section("map", title, paragraph(words), drawn))
    lines = parallel_lines(records)
    if lines is not None and len(lines.axes) > 1:
        words = (
            "Every line is a trial; the warmer, the higher its score. The best one is "
            "thick."
        )
        drawn = _svg_maps.parallel(lines)
        parts.append(
            section("parallel", "Parallel coordinates", paragraph(words), drawn)
        )
    return "".join(parts)


def _luck_words(found: Importances) -> str:
    top = found.axes[0].share
    if found.luck is None or found.luck < top:
        return (
            "The dashed line is what the luckiest axis gets when scores are shuffled; "
            "pale bars are no more than that."
        )
    return (
        "When scores are shuffled, the luckiest axis gets as much as the first one "
        "here: these trials do not tell which axes matter."
    )


def leaderboard(study: Study, records: Sequence[TrialRecord], album: Album) -> str:
    """The best trials with scores, values and pictures."""
    found = leaders(records, study.settings.tally)
    cards = [_leader(study, leader, album) for leader in found]
    prompts = _prompt_table(found)
    return section("leaders", "Leaderboard", prompts, *cards) if found else ""


def _leader(study: Study, leader: Leader, album: Album) -> str:
    record = leader.record
    label = f" ({record.label})" if record.label else ""
    title = html.escape(f"{leader.rank}. Trial {record.number}{label}")
    score = html.escape(f"{leader.score.estimate:.4f}")
    facts = [f"95 %: {spread(leader.score)}"] if leader.score.low is not None else []
    facts += [f"over {name}: {signed(delta)}" for name, delta in leader.ahead]
    if record.diversity is not None:
        facts.append(f"diversity {record.diversity:.3f}")
    facts.append(f"{record.seconds:.0f} s")
    values = ", ".join(f"{name}={value:.4g}" for name, value in record.point.items())
    shots = album.shots(study.trial_dir(record.number), record.images)
    return (
        f'<div class="card"><h3>{title}<span>{score}</span></h3>'
        f"{paragraph(' · '.join(facts), 'soft')}"
        f"{_svg_maps.mini_bars(list(record.point.items()))}"
        f"{folded('Values', f'<pre>{html.escape(values)}</pre>')}{shots}</div>"
    )


def _prompt_table(found: Sequence[Leader]) -> str:
    """Scores by payload, a column a leader."""
    shown = [leader for leader in found if leader.record.images]
    columns = [prompt_scores(leader.record.images) for leader in shown]
    if not columns or len(columns[0]) < 2:
        return ""
    rows = []
    for place, first in enumerate(columns[0]):
        cells = [column[place].score.estimate for column in columns]
        rows.append((first.payload, *(f"{cell:.3f}" for cell in cells)))
    heads = ("payload", *(f"trial {leader.record.number}" for leader in shown))
    return folded("Scores by payload", table(heads, rows))


def rungs(study: Study, records: Sequence[TrialRecord]) -> str:
    """How far cheap rungs rank trials as whole pictures do."""
    parts = []
    for found in rung_scores(records):
        told = "unknown yet"
        if found.correlation is not None:
            told = f"{found.correlation:.2f}"
        least = study.settings.fidelity.min_correlation
        words = (
            f"Rank correlation with whole pictures {told} over {len(found.pairs)} "
            f"trials that have both; below {least:.2f} the rung is dropped. "
            f"{found.n_screened} trials ended at it."
        )
        parts.append(f"<h3>{html.escape(found.rung)}</h3>{paragraph(words)}")
        if len(found.pairs) > 1:
            points = [
                (cheap, full, f"trial {number}: {cheap:.4f}, whole {full:.4f}", False)
                for number, cheap, full in found.pairs
            ]
            label = f"Whole score against the score on {found.rung}"
            parts.append(_svg_maps.cloud(points, f"score on {found.rung}", label))
    return section("rungs", "Cheap rungs", *parts) if parts else ""


def diversity(records: Sequence[TrialRecord]) -> str:
    """Score against diversity, with the front."""
    done = [r for r in whole(records) if r.diversity is not None]
    if len(done) < 2:
        return ""
    front = pareto_front(records)
    points = [
        (
            r.diversity or 0.0,
            r.score or 0.0,
            f"trial {r.number} {r.label}: score {r.score:.4f}, "
            f"diversity {r.diversity:.4f}",
            r.number in front,
        )
        for r in done
    ]
    rows = [
        (f"{r.number} {r.label}".strip(), f"{r.score:.4f}", f"{r.diversity:.4f}")
        for r in done
        if r.number in front
    ]
    return section(
        "diversity",
        "Diversity",
        paragraph(
            "How unlike the pictures of one prompt are from seed to seed: 0 all alike, "
            "1 nothing in common. On the line are trials that no other beats in both "
            "score and diversity."
        ),
        _svg_maps.cloud(points, "diversity", "Score against diversity"),
        folded("Trials on the front", table(("trial", "score", "diversity"), rows)),
    )


def settings(study: Study) -> str:
    """What the study was told, and its recipe."""
    rows = [(name, value) for name, value in _rows(study.settings).items()]
    prompts = [
        (p.name, p.prompt, p.negative_prompt)
        for p in (*study.settings.payloads, *study.settings.held_out_payloads)
    ]
    heads = ("payload", "prompt", "negative prompt")
    texts = [
        f"<h3>{html.escape(p.name)}</h3><pre>{html.escape(infotext_of(p))}</pre>"
        for p in (*study.settings.payloads, *study.settings.held_out_payloads)
    ]
    whole_text = json.dumps(study.settings.to_json(), indent=1, ensure_ascii=False)
    return section(
        "settings",
        "Settings",
        table(("setting", "value"), rows, n_words=2),
        folded("Prompts", table(heads, prompts, n_words=3)) if prompts else "",
        folded("Generation data of the payloads", *texts) if texts else "",
        folded("All settings as JSON", f"<pre>{html.escape(whole_text)}</pre>"),
    )


def infotext_of(payload: Payload) -> str:
    """A payload as the WebUI writes it under a picture, to be pasted into txt2img."""
    pairs: list[tuple[str, object]] = [
        ("Steps", payload.steps),
        ("Sampler", payload.sampler_name),
        ("Schedule type", payload.scheduler),
        ("CFG scale", f"{payload.cfg_scale:g}"),
        ("Seed", payload.seed),
        ("Size", f"{payload.width}x{payload.height}"),
    ]
    if payload.enable_hr:
        pairs.append(("Denoising strength", f"{payload.denoising_strength:g}"))
        is_resized = payload.hr_resize_x or payload.hr_resize_y
        size = f"{payload.hr_resize_x}x{payload.hr_resize_y}"
        scale = ("Hires upscale", f"{payload.hr_scale:g}")
        pairs.append(("Hires resize", size) if is_resized else scale)
        if payload.hr_second_pass_steps:
            pairs.append(("Hires steps", payload.hr_second_pass_steps))
        pairs.append(("Hires upscaler", payload.hr_upscaler))
    lines = [payload.prompt]
    if payload.negative_prompt:
        lines.append(f"Negative prompt: {payload.negative_prompt}")
    lines.append(", ".join(f"{name}: {value}" for name, value in pairs))
    return "\n".join(lines)


def _rows(found: StudySettings) -> dict[str, str]:
    judges = ", ".join(f"{j.id} (weight {j.weight:g})" for j in found.judges)
    rungs = ", ".join(rung.name for rung in found.fidelity.rungs)
    return {
        "method": f"{found.method}, searching {found.param}",
        "models": ", ".join(found.models),
        "architecture": found.arch_id,
        "searched besides": ", ".join(
            f"{axis.name} {axis.low:g} to {axis.high:g}" for axis in found.axes
        )
        or "nothing",
        "started from": ", ".join(start.label for start in found.start_points()),
        "scorers": judges,
        "score of a picture": found.scoring.normalise,
        "score of a trial": found.tally,
        "sampler": f"{found.sampler}, seed {found.seed}",
        "pictures": f"{found.n_images} a trial, {found.n_held_out_images} a candidate "
        "on held-out seeds",
        "given up early": f"p < {found.pruning.p_threshold:g} after "
        f"{found.pruning.n_first} pictures"
        if found.pruning.is_on
        else "no",
        "cheap rungs": rungs or "none",
        "diversity": found.diversity.use,
        "precision": f"computed in {found.compute_dtype}, saved as {found.save_dtype}",
    }


def recipe(study: Study, point: Mapping[str, float]) -> str:
    """The merge itself, as a recipe that can be run again."""
    text = json.dumps(study.settings.recipe(point).to_json(), indent=1)
    return section(
        "recipe",
        "Recipe",
        paragraph("Repeats the merge: save it as a .json file and run it."),
        folded("Recipe as JSON", f"<pre>{html.escape(text)}</pre>"),
    )
