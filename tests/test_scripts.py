"""What the scripts share: the same eight sections, and the same last two to the letter."""

import json
import re
import subprocess
import sys

import pytest
from conftest import ROOT

SCRIPTS = sorted(ROOT.glob("run_*.py"))
SECTIONS = ["Setup", "Data", "Model", "Trainer", "Train", "Evaluate", "Report", "Hub"]


def test_every_script_ends_in_the_same_report_and_push():
    tails = {path.name: path.read_text().partition("    # ----- 7. Report\n")[2] for path in SCRIPTS}
    assert len(tails) >= 2 and all("write_card" in tail and "push(" in tail for tail in tails.values())
    assert len(set(tails.values())) == 1


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_has_the_eight_sections_in_order_and_one_place_to_adapt(path):
    text = path.read_text()
    assert re.findall(r"^ +# ----- \d\. (\w+)$", text, re.MULTILINE) == SECTIONS
    assert text.count("\n# ----- ADAPT HERE: ") == 1


@pytest.mark.parametrize("path", [*SCRIPTS, ROOT / "predict.py", ROOT / "app.py"], ids=lambda path: path.name)
def test_threads_are_told_not_to_spin_before_any_package_is_imported(path):
    """GNU OpenMP reads `GOMP_SPINCOUNT` when it is loaded, which torch and scikit-learn do when they are imported."""
    lines = path.read_text().splitlines()
    told = next(i for i, line in enumerate(lines) if line.startswith('os.environ.setdefault("GOMP_SPINCOUNT", '))
    before = [line.split()[1].split(".")[0] for line in lines[:told] if re.match(r"(import|from) ", line)]
    assert before and set(before) <= sys.stdlib_module_names


# One start of Python: predict.py first, since nothing is taken out of memory again
HELPS = """
import contextlib, io, json, runpy, sys
for script in sys.argv[1:]:
    sys.argv = [script, "--help"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        runpy.run_path(script, run_name="__main__")
    print(json.dumps([script, sorted({name.split(".")[0] for name in sys.modules})]))
"""


def test_help_imports_nothing_that_only_a_later_section_or_another_task_uses():
    heavy = {"evaluate", "gradio", "matplotlib", "nltk", "rouge_score", "trackio", "wandb"}
    commands = ["predict.py", *(path.name for path in SCRIPTS)]
    done = subprocess.run([sys.executable, "-c", HELPS, *commands], cwd=ROOT, capture_output=True, text=True)
    imported = dict(json.loads(line) for line in done.stdout.splitlines())
    assert imported.keys() == set(commands), done.stderr[-2000:]
    assert {"torch", "transformers"} <= {*imported["predict.py"]} and "trl" not in imported["predict.py"]
    assert {command: heavy & {*packages} for command, packages in imported.items()} == dict.fromkeys(commands, set())
