"""AutoMBW's files: published runs by named block, and files that are none of them."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path

import pytest

from lib_merge.core.block_orders import CSV_ORDER, ORDERS, RECIPE_TXT_ORDER
from lib_merge.errors import InputError
from lib_merge.formats.autombw_csv import (
    read_csv,
    read_history,
    read_recipe_txt,
    read_run,
)

ROOT = Path(__file__).resolve().parents[2]
OWN = ROOT / "tests" / "data" / "autombw"
SHARED = ROOT.parent / "shared" / "data" / "autombw" / "runs"
RUNS = SHARED if SHARED.is_dir() else OWN

FIGURES = {
    "02b": (102, 0.4824, 0.5242, 76, 1649),
    "04b": (87, 0.4630, 0.5395, 59, 1780),
    "06b": (61, 0.5023, 0.5551, 33, 2042),
    "08b": (64, 0.4829, 0.5299, 36, 2035),
    "10b": (28, 0.5745, 0.5745, 0, 1804),
    "12b": (103, 0.5270, 0.5649, 82, 1692),
    "14b": (67, 0.5158, 0.6142, 39, 1692),
    "16b": (100, 0.5417, 0.6084, 90, 1729),
    "18b": (41, 0.5974, 0.6078, 13, 1825),
    "20b": (110, 0.5885, 0.6416, 82, 1391),
    "201b": (99, 0.5628, 0.6284, 71, 758),
    "203b": (64, 0.5444, 0.6187, 36, 810),
    "205b": (57, 0.5480, 0.5976, 29, 816),
    "207b": (53, 0.5505, 0.6045, 25, 810),
    "209b": (64, 0.5637, 0.6086, 36, 815),
}
"""Run -> trials, first score, best score, best row, seconds a trial."""


@pytest.mark.parametrize("path", sorted(RUNS.glob("*.csv")), ids=lambda p: p.name[:4])
def test_published_run_gives_its_figures_and_one_set_of_weights(path: Path) -> None:
    run = read_run(path)
    n, first, best, row, seconds = FIGURES[run.name.split("-")[0]]
    assert (len(run.trials), run.best) == (n, row)
    assert run.trials[0].score == pytest.approx(first, abs=6e-5)
    assert run.trials[row].score == pytest.approx(best, abs=6e-5)
    assert run.seconds is not None
    assert run.seconds / n == pytest.approx(seconds, abs=1.5)
    assert run.recipe is not None
    assert dict(run.recipe.weights) == dict(run.trials[row].weights)
    assert len(run.recipe.weights) == 27
    assert not any("is not the best row" in note for note in run.notes)


def test_orders_name_the_same_27_blocks_and_differ_where_the_field_says() -> None:
    assert {frozenset(order) for order in ORDERS.values()} == {frozenset(CSV_ORDER)}
    assert all(len(order) == 27 for order in ORDERS.values())
    assert [CSV_ORDER[i] for i in (12, 13, 14, 26)] == [
        "M00",
        "OUT",
        "OUT00",
        "TIME_EMBED",
    ]
    assert RECIPE_TXT_ORDER[-2:] == ("OUT", "TIME_EMBED")
    assert ORDERS["old_page"][-2:] == ("TIME_EMBED", "OUT")


def table(tmp_path: Path, *rows: str, head: str | None = None) -> Path:
    """A CSV of these rows."""
    path = tmp_path / "a-0-2023-11-17-04-13PM-01.csv"
    head = head or ",".join([*map(str, range(27)), "score,eval_times,iter_times"])
    path.write_bytes("\r\r\n".join([head, *rows, ""]).encode())
    return path


def test_columns_are_read_by_their_headings_not_by_their_places(tmp_path: Path) -> None:
    head = ",".join(["score", *map(str, reversed(range(27)))])
    values = ",".join(str(i / 100) for i in reversed(range(27)))
    run = read_csv(table(tmp_path, f"0.5,{values}", head=head))
    assert run.name == "a"
    assert run.seconds is None
    weights = run.trials[0].weights
    assert (weights["IN00"], weights["OUT"], weights["TIME_EMBED"]) == (0, 0.13, 0.26)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (",".join(["x"] * 30), "trial 1: column 0 holds 'x', which is no number"),
        (",".join(["nan"] * 30), "column 0 holds 'nan'"),
        ("0.1,0.2", "column 2 holds ''"),
        ("", "holds no trial"),
    ],
    ids=["text", "nan", "short", "none"],
)
def test_damaged_row_is_named(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_csv(table(tmp_path, row))


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lacks the columns 0, 1, 2, 3, 4, 5"):
        read_csv(table(tmp_path, "1,2", head="a,b"))
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_csv(tmp_path / "gone.csv")
    path = tmp_path / "r.txt"
    path.write_text("modelA=a\nmodelB=b\n0.1,0.2\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"line 3: 2 numbers, but AutoMBW's 27"):
        read_recipe_txt(path)
    path.write_text("modelA=a\n", encoding="utf-8")
    with pytest.raises(InputError, match="no line of 27 numbers"):
        read_recipe_txt(path)


def test_recipe_that_is_not_the_best_row_is_noted(tmp_path: Path) -> None:
    path = table(tmp_path, ",".join(["0.5"] * 27 + ["0.7", "10", "11"]))
    weights = ["0.5"] * 25 + ["0.1", "0.5"]
    text = f"modelA=C:\\x\\a.ckpt\nmodelO=z\n{','.join(weights)}\nBest score: 1\n"
    (tmp_path / "a.recipe.txt").write_text(text, encoding="utf-8")
    run = read_run(path)
    assert run.recipe is not None
    assert run.recipe.models == ("a.ckpt",)
    assert run.recipe.weights["OUT"] == 0.1
    assert "OUT differ" in run.notes[0]
    assert "calls the merge 'z'" in run.notes[1]


def test_history_gives_weights_in_the_order_of_the_table(tmp_path: Path) -> None:
    weights = ",".join(str(i / 100) for i in range(27))
    head = "datetime\tcurrent_pass\tmodel_A\tmodel_B\tmodel_O\tweights\ttally_type"
    row = f"2023-11-17\t0\ta.safetensors\tb.safetensors\to\t{weights}\tArithmetic"
    path = tmp_path / "history.tsv"
    path.write_text(f"{head}\n{row}\n", encoding="utf-8")
    (found,) = read_history(path)
    assert found.output == "o"
    assert found.weights["OUT"] == 0.13
    assert found.fields["tally_type"] == "Arithmetic"
    path.write_text(f"{head}\n2023\t0\ta\tb\to\t1,2\tx\n", encoding="utf-8")
    with pytest.raises(InputError, match="line 2: 2 numbers"):
        read_history(path)


def test_mutated_files_give_an_answer_or_a_clear_error(tmp_path: Path) -> None:
    draw = random.Random(5)
    data = next(OWN.glob("*.csv")).read_bytes()[:4000]
    path = tmp_path / "m.csv"
    for _ in range(300):
        changed = bytearray(data)
        for _ in range(draw.randrange(1, 8)):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        path.write_bytes(changed)
        # Anything but a table or this very error fails the test.
        with suppress(InputError):
            assert read_csv(path).trials
