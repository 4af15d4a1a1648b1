"""docs/ builds as a site without a warning, and its pages load nothing from elsewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

pytest.importorskip("material")


def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = [path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html")]
    loaded = [
        tag
        for page in pages
        for tag in re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", page)
        if 'rel="canonical' not in tag
    ]
    assert (
        len(pages) > 10 and loaded and not [tag for tag in loaded if re.search(r"(?:src|href)=\"(?:https?:)?//", tag)]
    )


def test_every_page_is_in_the_menu():
    menu = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    named = {entry if isinstance(entry, str) else next(iter(entry.values())) for entry in menu}
    assert named == {Path(path).name for path in (ROOT / "docs").glob("*.md")}
