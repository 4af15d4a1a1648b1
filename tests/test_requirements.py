"""Each entry installs what it imports and no more: requirements.txt for training, the extras for the rest."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from conftest import ROOT

PINS = {path: path.read_text(encoding="utf-8") for path in (
    ROOT / "requirements.txt", *sorted((ROOT / "requirements").glob("*.txt")), ROOT / "tests" / "requirements.txt",
    ROOT / "recipes" / "quickstart" / "requirements.txt",
)}  # fmt: skip
DISTRIBUTIONS = packages_distributions()
# what comes with a pinned package, in the version that it asks for
INDIRECT = {"safetensors", "tokenizers", "pydantic", "starlette", "h11"}
LEAVES = {"serving": "app", "sweeps": "sweeps", "export": "export", "runtimes": "export"}  # room of utils -> its extra


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(path: Path) -> set[str]:
    lines = [line.split("#")[0].strip() for line in PINS[path].splitlines()]
    assert all(re.match(r"[\w.-]+==[\w.]+(;|$)", line) for line in lines if line), f"{path}: exact pins"
    return {normal(line.split("==")[0]) for line in lines if line}


def imported(paths: Iterable[Path]) -> set[str]:
    """The distributions that these files import, wherever in the file."""
    nodes = [node for path in paths for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    tops = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)
    return {normal(DISTRIBUTIONS[top][0]) for top in tops if not any(ROOT.glob(f"{top}*"))} - INDIRECT


def files(extra: str | None) -> list[Path]:
    found = [path for path in (ROOT / "utils").rglob("*.py") if LEAVES.get(path.relative_to(ROOT).parts[1]) == extra]
    return found + [*ROOT.glob("run_*.py"), ROOT / "predict.py"] * (extra is None)


@pytest.mark.parametrize(
    ("extra", "entry"), [(None, "predict.py"), ("app", "app.py"), ("sweeps", "sweep.py"), ("export", "export.py")]
)
def test_what_is_imported_is_pinned(extra: str | None, entry: str):
    allowed = pinned(ROOT / "requirements.txt") | pinned(ROOT / "requirements" / "trackers.txt")  # if `report_to` asks
    allowed |= pinned(ROOT / "requirements" / "privacy.txt")  # where it is installed
    if extra == "export":
        allowed |= pinned(ROOT / "recipes" / "quickstart" / "requirements.txt")  # `make install` installs gguf
    if extra:
        allowed |= pinned(ROOT / "requirements" / f"{extra}.txt")
    assert imported([*files(extra), ROOT / entry]) - allowed == set()


def test_no_package_is_pinned_in_two_files():
    names = [name for path in PINS for name in pinned(path)]
    assert len(names) == len(set(names))


def test_the_quickstart_installs_what_training_needs_alone():
    command = ["make", "--dry-run", "--always-make", "quickstart"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"-r (\S+)", shown)) == {"requirements.txt", "recipes/quickstart/requirements.txt"}
