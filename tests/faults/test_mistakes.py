"""Whatever a user gets wrong: exit code 2, one line, and no file that is changed."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Run, run_here, write_yaml

import app
from predict import PredictArguments
from tests.faults.mistakes import in_commands, in_recipes, in_tables, of_tools
from utils.sweeps.arguments import SweepArguments

TOOLS = {"predict.py": PredictArguments, "sweep.py": SweepArguments}


def files(folder: Path) -> dict[Path, bytes]:
    """Every file but what a run notes about itself before it reads its data."""
    found = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {path: data for path, data in found.items() if "run" not in path.relative_to(folder).parts}


def start(script: str, words: list[str]) -> Run:
    """Run a script in this process, as its last lines do."""
    if script == "app.py":
        return run_here(lambda given: app.main(words), (), [])
    if script in TOOLS:
        return run_here(lambda args, given: importlib.import_module(script[:-3]).main(args), (TOOLS[script],), words)
    module = importlib.import_module(script.removesuffix(".py"))
    return run_here(module.main, module.ARGUMENTS, words)


@pytest.fixture(scope="session")
def recipes(command, tmp_path_factory):
    """Return script -> its keys and values, which work."""
    folder = tmp_path_factory.mktemp("recipes")
    found = {}
    for script in ("run_classification.py", "run_qa_sft.py", "run_hierarchical.py", "run_summarization.py"):
        words = command(script, folder)
        keys = [place for place, word in enumerate(words) if word.startswith("--")]
        found[script] = {
            words[a][2:]: yaml.safe_load(words[a + 1])
            for a in keys
            if words[a] not in ("--output_dir", "--disable_tqdm")
        }
    return found


def check(mistakes, tmp_path, monkeypatch) -> str:
    """Make each mistake; return those that do not end as they should, and how, one a line."""
    monkeypatch.chdir(tmp_path)
    wrong = []
    for number, mistake in enumerate(mistakes):
        folder = tmp_path / str(number)
        folder.mkdir()
        words = mistake.words(folder)
        before = files(folder)
        try:
            done = start(mistake.script, words)
        except BaseException as error:
            wrong.append(f"{mistake.name}: {type(error).__name__}: {error}")
            continue
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        if (
            done.code != 2
            or len(errors) != 1
            or "Traceback" in done.stderr
            or done.stderr.splitlines()[-1] != errors[0]
        ):
            wrong.append(f"{mistake.name}: exit code {done.code}, {errors or done.stderr[-300:]}")
        if "words of row" in done.stdout + done.stderr:
            wrong.append(f"{mistake.name}: the text of a row is printed")
        if files(folder) != before:
            wrong.append(f"{mistake.name}: a file has changed")
    return "\n".join(wrong)


def test_a_mistake_in_a_recipe_is_one_line(recipes, tmp_path, monkeypatch):
    mistakes = in_recipes("run_classification.py", recipes["run_classification.py"])
    assert len(mistakes) >= 80 and check(mistakes, tmp_path, monkeypatch) == ""
    assert not Path("/tmp/never").exists()


@pytest.mark.parametrize(
    ("script", "columns", "ending"),
    [
        ("run_classification.py", ["note", "ward"], "csv"),
        pytest.param("run_qa_sft.py", ["question", "answer"], "jsonl", marks=pytest.mark.faults),
        pytest.param("run_summarization.py", ["dialogue", "note"], "jsonl", marks=pytest.mark.faults),
        pytest.param("run_hierarchical.py", ["note", "ward"], "csv", marks=pytest.mark.faults),
    ],
)
def test_a_mistake_in_a_table_is_one_line(script, columns, ending, recipes, tmp_path, monkeypatch):
    assert check(in_tables(script, recipes[script], columns, ending), tmp_path, monkeypatch) == ""


def test_a_mistake_on_a_command_line_is_one_line(recipes, tmp_path, monkeypatch):
    mistakes = in_commands("run_classification.py", recipes["run_classification.py"])
    assert check(mistakes, tmp_path, monkeypatch) == ""


def test_a_mistake_with_a_finished_run_is_one_line(danger_reader, data, tmp_path, monkeypatch):
    assert check(of_tools(Path(danger_reader), data.notes), tmp_path, monkeypatch) == ""


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.faults)])
def test_the_line_is_the_last_word_of_a_launcher(processes, tmp_path):
    recipe = write_yaml(tmp_path / "recipe.yaml", {"learning_rte": 1})
    one = ["accelerate.commands.launch", "--quiet", "--cpu"]
    command = [sys.executable, "-m", *(one if processes == 1 else ["torch.distributed.run", "--nproc_per_node", "2"])]
    done = subprocess.run(
        [*command, "run_classification.py", str(recipe)], cwd=ROOT, env=os.environ, capture_output=True, text=True
    )
    lines = [line for line in done.stderr.splitlines() if "error: `learning_rte`" in line]
    assert done.returncode == 1 and lines
    if processes == 1:
        assert done.stderr.splitlines()[-1] == lines[0] and "Traceback" not in done.stderr
    else:
        assert lines[-1] in done.stderr.splitlines()[-3:]
