"""The floors of CONTRIBUTING.md: an import points down or stays inside its package."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS: dict[str, set[str]] = {
    "models": set(),
    "flow": set(),
    "runtime": set(),
    "accounting": set(),
    "data": {"runtime"},
    "evaluation": {"flow", "data", "runtime", "accounting"},
    "tasks": {"flow", "data", "runtime"},  # beside evaluation: what is given of a clip
    "training": {"models", "evaluation", "tasks", "flow", "data", "runtime", "accounting"},
    "ablation": {"evaluation", "flow", "data", "runtime", "accounting"},  # beside training: it starts runs, it does not train
    "bench": {"models", "runtime", "accounting"},  # measures networks; beside the floors, as only scripts/bench_model.py opens it
}
# Open to every floor: arithmetic of shapes, counters, and the one door through which networks and measures read frozen weights of others.
GROUND = {"models.geometry", "runtime.seeding", "runtime.local_weights"}
# Their import costs seconds or they come with an extra: inside the function that needs them, never at the top of a module.
LAZY = {"wandb", "decord", "matplotlib", "transformers", "diffusers", "accelerate", "torchao", "torchcodec", "pyarrow", "ray"}
LAZY |= {"submitit", "gradio", "pynvml", "zeus"}


def _imports(path: Path) -> list[tuple[str, bool]]:
    """(module, whether it stands at the top of the file) for every import of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = set(map(id, tree.body))
    found: list[tuple[str, bool]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            found += [(f"{base}.{alias.name}", id(node) in top) for alias in node.names]
    return found


def _modules() -> list[Path]:
    return sorted(path for package in FLOORS for path in (ROOT / package).rglob("*.py"))


def _violations(path: Path) -> list[str]:
    package = path.relative_to(ROOT).parts[0]
    bad = []
    for name, at_top in _imports(path):
        head = name.split(".")[0]
        if not head:
            bad.append(f"{name} (relative; write the whole name)")
        elif head in ("train", "sample", "scripts", "tests"):
            bad.append(f"{name} (an entry point)")
        elif head in FLOORS and head != package and head not in FLOORS[package]:
            if not any(name == ground or name.startswith(ground + ".") for ground in GROUND):
                bad.append(f"{name} (not below {package}/)")
        elif head in LAZY and at_top:
            bad.append(f"{name} (import it inside the function that needs it)")
    return bad


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    assert not _violations(path), f"{path.relative_to(ROOT)} imports {', '.join(_violations(path))}"


def test_ground_modules_import_nothing_of_ours() -> None:
    for module in GROUND:
        names = {name.split(".")[0] for name, _ in _imports(ROOT / (module.replace(".", "/") + ".py"))}
        assert not names & set(FLOORS), module


def test_the_checker_sees_a_bad_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = tmp_path / "flow" / "bad.py"
    bad.parent.mkdir()
    bad.write_text("import models.dit\nfrom models.geometry import Layout\nimport wandb\nfrom training import trainer\n")
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert len(_violations(bad)) == 3


def test_there_is_no_room_for_leftovers() -> None:
    forbidden = {"utils", "common", "core", "misc", "registry", "helpers"}
    assert not [path for path in _modules() if forbidden & {path.stem, *path.relative_to(ROOT).parts[:-1]}]
