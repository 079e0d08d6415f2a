"""Fields of requests: what fits, what is absent, and every problem at once."""

from __future__ import annotations

from typing import Any

import pytest

from lib_merge.api._fields import Field, Kind, read_body, read_query

FIELDS = (
    Field("name", Kind.TEXT, "a name", is_required=True),
    Field("n", Kind.WHOLE, "how many", default=3, low=1),
    Field("way", Kind.TEXT, "which way", default="up", choices=("up", "down")),
)


def test_absent_fields_take_their_defaults() -> None:
    found = read_body(FIELDS, {"name": "x", "way": None})
    assert found == {"name": "x", "n": 3, "way": "up"}


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(ValueError, match="no field") as raised:
        read_body(FIELDS, {"n": 0, "way": "left", "size": 1})
    assert len(raised.value.args) == 4
    assert raised.value.args[0] == "There is no field 'size'; known: name, n, way."
    assert "'name' is missing" in raised.value.args[1]
    assert "at least 1" in raised.value.args[2]
    assert "'up', 'down'" in raised.value.args[3]


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (Kind.TEXT, "a", 1),
        (Kind.WHOLE, 2, 2.5),
        (Kind.WHOLE, 2, True),
        (Kind.NUMBER, 0.5, "0.5"),
        (Kind.NUMBER, 1, float("nan")),
        (Kind.FLAG, True, 1),
        (Kind.TEXTS, ["a"], ["a", 1]),
        (Kind.NUMBERS, [1, 0.5], [1, "b"]),
        (Kind.VALUES, {"a": 1, "b": "c"}, {"a": [1]}),
        (Kind.OBJECT, {"a": [1]}, []),
        (Kind.MIXED, ["a", {"b": 1}], [1]),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_kind_takes_its_own_and_nothing_else(kind: Kind, good: Any, bad: Any) -> None:
    fields = [Field("x", kind, "a value")]
    assert read_body(fields, {"x": good}) == {"x": good}
    with pytest.raises(ValueError, match="'x' is"):
        read_body(fields, {"x": bad})


def test_query_texts_become_what_is_meant() -> None:
    fields = [
        Field("n", Kind.WHOLE, "a number"),
        Field("is_on", Kind.FLAG, "a switch", default=False),
    ]
    assert read_query(fields, {"n": "4", "is_on": "true"}) == {"n": 4, "is_on": True}
    with pytest.raises(ValueError, match="'n' is 'many'"):
        read_query(fields, {"n": "many"})
