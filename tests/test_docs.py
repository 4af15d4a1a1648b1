"""docs/ builds as a site without a warning, and its pages load nothing from elsewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from benchmarks.picture import COLORS, FOLDER, draw

pytest.importorskip("material")


def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = [path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html")]
    tags = [tag for page in pages for tag in re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", page)]
    assert len(pages) > 10 and tags
    far = [tag for tag in tags if re.search('(?:src|href)="(?:https?:)?//', tag)]
    assert not [tag for tag in far if 'rel="canonical"' not in tag]


def test_every_page_is_in_the_menu():
    menu = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    named = {entry if isinstance(entry, str) else next(iter(entry.values())) for entry in menu}
    assert named == {Path(path).name for path in (ROOT / "docs").glob("*.md")}


def test_the_pictures_are_those_that_the_code_draws():
    for theme in COLORS:
        assert (FOLDER / f"pipeline-{theme}.svg").read_text(encoding="utf-8") == draw(theme), (
            "python -m benchmarks.picture"
        )
