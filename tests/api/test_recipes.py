"""Recipes by HTTP: saved, listed, and read from other programs' texts."""

from __future__ import annotations

import json

import pytest

from tests.api.conftest import SUM, Api
from tests.ui.fakes import FakeHost


def test_saved_recipe_is_listed_and_shown(api: Api, host: FakeHost) -> None:
    kept = api.post("/recipes", {**SUM, "name": "first"}, status=201)
    assert kept["path"].endswith("first.json")
    (line,) = api.get("/recipes")
    assert line["sentence"] == "weighted_sum of a.safetensors, b.safetensors"
    shown = api.get("/recipes/first")
    assert shown["recipe"] == line["recipe"] == api.post("/merge/plan", SUM)["recipe"]
    assert [one["reason"] for one in shown["models"]] == ["", ""]
    assert "exists" in api.refused(
        "POST", "/recipes", {**SUM, "name": "first"}, status=409
    )


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a:b", ""])
def test_recipe_is_saved_in_its_folder_only(api: Api, name: str) -> None:
    api.refused("POST", "/recipes", {**SUM, "name": name}, status=403)
    assert api.get("/recipes") == []


def test_damaged_recipe_is_listed_with_the_reason(api: Api) -> None:
    (api.workspace.recipe_dir() / "bad.json").write_text("{", encoding="utf-8")
    (line,) = api.get("/recipes")
    assert line["recipe"] is None
    assert "cannot be read" in line["sentence"]
    api.refused("GET", "/recipes/bad", status=400)
    api.refused("GET", "/recipes/none", status=404)


MECHA = """version 0.1.0
model "C:\\\\models\\\\a.safetensors" model_config="sd1-ldm" merge_space="weight"
model "b.safetensors" model_config="sd1-ldm" merge_space="weight"
merge "weighted_sum" &0 &1 alpha=0.3
"""


def test_text_of_another_program_becomes_a_recipe_with_the_hosts_files(
    api: Api, host: FakeHost
) -> None:
    found = api.post("/recipes/read", {"text": MECHA, "name": "old.mecha"})
    folder = host.catalog.folder
    paths = [str(folder / "a.safetensors"), str(folder / "b.safetensors")]
    assert [one["found"] for one in found["models"]] == paths
    assert "sd-mecha" in found["notes"][0]
    body = {"recipe_json": found["recipe_json"]}
    plan = api.post("/merge/plan", body)
    assert plan["recipe_json"]["nodes"][-1]["params"]["alpha"]["value"] == 0.3


def test_own_recipe_text_round_trips(api: Api, host: FakeHost) -> None:
    plan = api.post("/merge/plan", SUM)
    text = json.dumps(plan["recipe_json"])
    found = api.post("/recipes/read", {"text": text, "name": "mine.json"})
    assert found["recipe"] == plan["recipe"]
    assert found["recipe_json"] == plan["recipe_json"]


def test_paths_of_another_machine_are_found_by_name(api: Api, host: FakeHost) -> None:
    data = api.post("/merge/plan", SUM)["recipe_json"]
    data["nodes"][0] = {"model": "/mnt/sd/a.safetensors", "sha256": None}
    data["nodes"][1] = {"model": "/mnt/sd/gone.safetensors", "sha256": None}
    found = api.post("/recipes/read", {"text": json.dumps(data)})
    first, second = found["models"]
    assert first["found"] == str(host.catalog.folder / "a.safetensors")
    assert second["found"] is None
    assert "gone.safetensors" in second["reason"]


def test_unreadable_text_is_refused_in_words(api: Api) -> None:
    told = api.refused("POST", "/recipes/read", {"text": "hello"}, status=400)
    assert "in no format of recipes" in told
    body = {"text": "{}", "as_of": "yesterday"}
    assert "2024-04-21" in api.refused("POST", "/recipes/read", body, status=400)
