"""Procedural pictures: one seed draws one picture; masks are what they say."""

from __future__ import annotations

import numpy as np
import pytest

from lib_merge.demo import DEMO_PROMPTS, shapes
from lib_merge.demo.shapes import COLOURS, SHAPES, SIZE_PX, SUBJECTS, Subject


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda s: s.prompt)
def test_draw_repeats_when_the_seed_repeats(subject: Subject) -> None:
    first, again, other = (
        shapes.draw(subject, np.random.default_rng(seed)) for seed in (3, 3, 4)
    )

    assert first.dtype == np.float32
    assert first.shape == (SIZE_PX, SIZE_PX, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("colour", COLOURS)
def test_draw_shows_the_colour_in_the_middle_when_the_shape_is_full(
    colour: str,
) -> None:
    picture = shapes.draw(Subject(colour, "square"), np.random.default_rng(0))

    middle = picture[SIZE_PX // 2, SIZE_PX // 2]
    distances = {
        name: np.abs(middle - np.array(rgb)).sum() for name, rgb in COLOURS.items()
    }
    assert min(distances, key=distances.__getitem__) == colour


AREAS = {"circle": np.pi, "square": 4 * 0.88**2, "triangle": 2.0, "cross": 2.2044}


@pytest.mark.parametrize("shape", SHAPES)
def test_mask_covers_the_area_of_the_shape(shape: str) -> None:
    radius = 20.0

    covered = shapes.mask(shape, (32.0, 32.0), radius)

    # 2 * 2r * 2(0.33 r) less the middle (0.66 r)^2 is 2.2044 r^2 for the cross.
    assert covered.sum() / radius**2 == pytest.approx(AREAS[shape], rel=0.02)


def test_mask_is_mirrored_when_the_shape_is_upright() -> None:
    covered = shapes.mask("triangle", (32.0, 32.0), 18.0)

    assert np.allclose(covered, covered[:, ::-1], atol=1e-6)
    assert covered[:32].sum() < covered[32:].sum()  # y grows downwards


def test_demo_prompts_are_subjects() -> None:
    assert set(DEMO_PROMPTS) <= {subject.prompt for subject in SUBJECTS}
