"""What `pip install .` installs."""

import shutil
import subprocess
import sys
from zipfile import ZipFile

from conftest import ROOT


def test_an_installed_copy_has_every_command_table_and_file_of_the_page(tmp_path):
    hidden = shutil.ignore_patterns("__pycache__")
    for name in ("utils", "requirements"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=hidden)
    (tmp_path / "tests").mkdir()
    scripts = sorted(ROOT.glob("*.py"))
    for path in (*scripts, *(ROOT / name for name in ("pyproject.toml", "README.md", "LICENSE", "requirements.txt"))):
        shutil.copy(path, tmp_path)
    shutil.copy(ROOT / "tests" / "requirements.txt", tmp_path / "tests")
    code = "from setuptools.build_meta import build_wheel; print(build_wheel('wheels'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    packed = set(ZipFile(wheel).namelist())
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "utils").rglob("*.*") if "__pycache__" not in path.parts}
    assert files | {path.name for path in scripts} <= packed
    assert {name.split("/")[0].split("-")[0] for name in packed} == {
        "utils", "medical_text_finetuning", *(path.name for path in scripts),
    }  # fmt: skip
