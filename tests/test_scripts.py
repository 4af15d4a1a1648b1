"""What the scripts share: the same eight sections, and the same last two to the letter."""

import json
import os
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


COMMANDS = [*SCRIPTS, *(ROOT / f"{name}.py" for name in ("predict", "app", "export", "sweep"))]


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.name)
def test_what_has_to_be_settled_before_the_libraries_are_imported_is(path):
    """GNU OpenMP reads `GOMP_SPINCOUNT` when it is loaded, which torch and scikit-learn do when they are imported."""
    lines = path.read_text().splitlines()
    settled = next(i for i, line in enumerate(lines) if line.startswith("import utils "))
    before = [line.split()[1].split(".")[0] for line in lines[:settled] if re.match(r"(import|from) ", line)]
    assert before and set(before) <= sys.stdlib_module_names


def test_the_settings_are_made_and_a_value_of_the_user_is_kept():
    code = "import utils, os, sys; print(os.environ['GOMP_SPINCOUNT'], {'torch', 'bitsandbytes'} & {*sys.modules})"
    for given, expected in ((None, "1000"), ("7", "7")):
        env = {key: value for key, value in os.environ.items() if key != "GOMP_SPINCOUNT"}
        env |= {"GOMP_SPINCOUNT": given} if given else {}
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)
        assert done.stdout.split() == [expected, "set()"]


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
