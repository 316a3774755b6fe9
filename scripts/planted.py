"""Apply each planted bug of tests/planted/ to a copy of the checkout and see that the test it names turns red.

Usage: python scripts/planted.py [NAME ...]      (names of patches without .patch; all when none is given)
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLANTED = ROOT / "tests" / "planted"
AT_TOP = {".venv", ".git", "runs", "cache", "datasets", ".pytest_cache", ".hypothesis", ".ruff_cache"}  # data/cache is code


def left_out(folder: str, names: list[str]) -> set[str]:
    """What is not copied: what git does not track."""
    return {name for name in names if name == "__pycache__" or (Path(folder) == ROOT and name in AT_TOP)}


def named_test(patch: Path) -> str:
    """The test that a patch's first lines name."""
    for line in patch.read_text(encoding="utf-8").splitlines():
        if line.startswith("# test:"):
            return line.removeprefix("# test:").strip()
    raise ValueError(f"{patch.name} names no test: its first lines must hold '# test: tests/...::test_...'")


def run_test(tree: Path, test: str) -> int:
    """pytest's exit code for one test in `tree`, whose modules come before the installed ones."""
    code = "import sys, pytest; sys.path.insert(0, '.'); sys.exit(pytest.main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, test, "-x", "-q", "-p", "no:cacheprovider", "-m", "not gpu"]
    return subprocess.run(command, cwd=tree, capture_output=True, check=False).returncode


def try_patch(tree: Path, patch: Path) -> str:
    """'red' when the named test passes without the bug and fails with it, else what is wrong."""
    test = named_test(patch)
    if run_test(tree, test) != 0:
        return "the named test does not pass without the bug"
    apply = ["git", "apply", "--whitespace=nowarn", "--recount", str(patch)]
    applied = subprocess.run(apply, cwd=tree, capture_output=True, text=True, check=False)
    if applied.returncode:
        return f"the patch no longer applies: {applied.stderr.strip().splitlines()[-1]}"
    code = run_test(tree, test)
    subprocess.run([*apply, "--reverse"], cwd=tree, check=True)
    return {0: "MISSED: the test passes with the bug", 1: "red"}.get(code, f"pytest ended with {code}: no such test, or it cannot be collected")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="names of patches without .patch")
    names = parser.parse_args().names
    patches = [PLANTED / f"{name}.patch" for name in names] or sorted(PLANTED.glob("*.patch"))
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "kinora"
        shutil.copytree(ROOT, tree, ignore=left_out)
        for patch in patches:
            verdict = try_patch(tree, patch)
            failures += verdict != "red"
            print(f"{patch.stem:44} {verdict}", flush=True)
    print(f"{len(patches) - failures} passed, {failures} failed")
    return 1 if failures or not patches else 0


if __name__ == "__main__":
    sys.exit(main())
