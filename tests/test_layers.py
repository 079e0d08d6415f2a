"""The import directions of the architecture, read off every import statement."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "lib_merge"

BELOW_ENGINE = {"checkpoint", "methods", "arch", "lora", "core", "errors"}
BELOW_EDGE = BELOW_ENGINE | {"engine"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "core": {"errors"},
    "methods": {"core", "errors"},
    "arch": {"core", "errors"},
    "checkpoint": {"core", "errors"},
    "hosts": {"core", "errors"},
    "lora": {"checkpoint", "arch", "core", "errors"},
    "engine": BELOW_ENGINE,
    "autombw": BELOW_EDGE | {"demo"},
    "analysis": BELOW_EDGE,
    "formats": BELOW_EDGE,
    "ui": BELOW_EDGE | {"autombw", "analysis", "formats"},
    # Not the pages: the jobs, studies and forms behind them (see the test below).
    "api": BELOW_EDGE | {"autombw", "analysis", "formats", "ui"},
    "cli": BELOW_EDGE
    | {"autombw", "analysis", "formats", "hosts", "ui", "api", "demo"},
    # The demo's places are constants; its training script is a program of its own.
    "demo": BELOW_ENGINE | {"autombw"},
}
"""Package -> packages it may import besides itself."""

ONLY_IN: dict[str, tuple[str, ...]] = {
    "modules": ("hosts/",),
    "backend": ("hosts/",),
    "ldm_patched": ("hosts/",),
    "modules_forge": ("hosts/",),
    "networks": ("hosts/",),
    "gradio": ("ui/",),
    "starlette": ("api/",),
    "fastapi": (),
    "optuna": ("autombw/",),
    "cmaes": ("autombw/",),
    "diffusers": ("hosts/diffusers.py", "hosts/_diffusers_weights.py", "demo/"),
    "transformers": ("autombw/scorers/", "demo/"),
    "ImageReward": ("autombw/scorers/",),
    "pydantic": (),
    "torchvision": (),
    "sd_mecha": (),
    "mergekit": (),
}
"""Library -> the only places that may import it, at any depth of a file."""

HEAVY = frozenset(
    {"torch", "numpy", "gradio", "optuna", "diffusers", "transformers", "PIL", "scipy"}
)

FILES = sorted(PACKAGE.rglob("*.py"))


def _name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def _imports(path: Path) -> Iterator[tuple[str, int]]:
    """(dotted name, line) of everything the file imports, in functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield from _from_names(node)


def _from_names(node: ast.ImportFrom) -> Iterator[tuple[str, int]]:
    module = node.module or ""
    if module == "lib_merge":
        yield from ((f"lib_merge.{alias.name}", node.lineno) for alias in node.names)
    else:
        yield module, node.lineno


def breaches(name: str, imported: str) -> list[str]:
    """What is wrong with a file of lib_merge importing something.

    Args:
        name: The file relative to lib_merge.
        imported: The dotted module.
    """
    own = name.split("/")[0].removesuffix(".py")
    top, _, rest = imported.partition(".")
    if top in ONLY_IN and not name.startswith(ONLY_IN[top] or ("no place",)):
        return [f"{imported} belongs in {', '.join(ONLY_IN[top]) or 'no file'}"]
    if top != "lib_merge" or own in ("__init__", "__main__"):
        return []
    target = rest.split(".")[0]
    if target in ("", "__version__", own) or target in MAY_IMPORT[own]:
        return []
    return [f"{own} may not import {target}"]


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_imports_point_down(path: Path) -> None:
    found = [
        f"line {line}: {fault}"
        for imported, line in _imports(path)
        for fault in breaches(_name(path), imported)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("name", "imported"),
    [
        ("core/plan.py", "lib_merge.engine.run"),
        ("hosts/forge.py", "lib_merge.engine.live"),
        ("engine/run.py", "lib_merge.hosts.a1111"),
        ("ui/tabs/merge.py", "lib_merge.hosts.forge"),
        ("engine/run.py", "modules.shared"),
        ("cli/merge.py", "gradio"),
        ("core/recipe.py", "pydantic"),
    ],
    ids=lambda value: str(value),
)
def test_breach_is_found_when_an_import_points_up(name: str, imported: str) -> None:
    assert breaches(name, imported)


def test_package_init_imports_nothing() -> None:
    assert list(_imports(PACKAGE / "__init__.py")) == []


@pytest.mark.parametrize("name", ["core", "methods", "arch"])
def test_declarations_import_no_heavy_library_at_run_time(name: str) -> None:
    for path in sorted((PACKAGE / name).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                module = getattr(node, "module", None) or node.names[0].name
                assert module.split(".")[0] not in HEAVY, f"{path.name}: {module}"


def test_routes_do_without_gradio() -> None:
    """What they take of the tab's package is what stands behind the pages."""
    command = "import sys, lib_merge.api.mount; print('gradio' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"


SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.name))
def test_script_is_short_and_bears_our_name(path: Path) -> None:
    assert path.name.startswith("merge_")
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 60


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_file_is_at_most_400_lines_long(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_module_says_what_it_is_for(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not tree.body or ast.get_docstring(tree)
