"""Every command in README.md, CONTRIBUTING.md, docs/ and the docstrings of programs parses; tables are those of the
result files; links lead somewhere."""

import ast
import re
import shlex
import subprocess
from pathlib import Path

import pytest

import app
import export
import predict
import run_classification
import run_hierarchical
import run_qa_sft
import run_summarization
from benchmarks.readme import BLOCKS, PAGES, render
from utils.arguments import DataArguments, parse_recipe
from utils.data.__main__ import ColumnArguments
from utils.evaluation.__main__ import EvaluationArguments
from utils.metrics.__main__ import MetricsArguments
from utils.privacy.__main__ import PrivacyArguments
from utils.safety.__main__ import SafetyArguments
from utils.sweeps.arguments import SweepArguments

ROOT = Path(__file__).parents[1]
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in [*PAGES, ROOT / "CONTRIBUTING.md"]}
ARGUMENTS = {
    "run_qa_sft.py": run_qa_sft.ARGUMENTS,
    "run_classification.py": run_classification.ARGUMENTS,
    "run_hierarchical.py": run_hierarchical.ARGUMENTS,
    "run_summarization.py": run_summarization.ARGUMENTS,
    "predict.py": (predict.PredictArguments,),
    "app.py": (app.AppArguments,),
    "sweep.py": (SweepArguments,),
    "export.py": (export.ExportArguments,),
    "utils.safety": (SafetyArguments,),
    "utils.data": (DataArguments, ColumnArguments),
    "utils.metrics": (MetricsArguments,),
    "utils.evaluation": (EvaluationArguments,),
    "utils.privacy": (PrivacyArguments,),
}


def blocks(language: str) -> list[str]:
    """Every code block of a language, a line that ends in a backslash joined with the next."""
    found = [block for text in TEXTS.values() for block in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)]
    return [block.replace("\\\n", " ") for block in found]


def docstring_commands() -> list[str]:
    """The indented commands at the top of the programs."""
    paths = [name if name.endswith(".py") else f"{name.replace('.', '/')}/__main__.py" for name in ARGUMENTS]
    found = [ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8"))) or "" for path in paths]
    lines = "\n".join(found).replace("\\\n", " ").splitlines()
    return [line for line in lines if re.match(r"    (accelerate|python) ", line)]


LINES = [line for block in blocks("bash") for line in block.splitlines()]
COMMANDS = [shlex.split(line, comments=True) for line in [*LINES, *docstring_commands()]]
COMMANDS = list(dict.fromkeys(map(tuple, filter(None, COMMANDS))))


def test_there_are_commands_of_every_kind():
    programs = {word for words in COMMANDS for word in words}
    assert len(COMMANDS) >= 20 and {"make", "source", *ARGUMENTS} <= programs


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_parses(words):
    if "|" in words:  # what reads is checked, `echo` is not
        words = words[words.index("|") + 1 :]
    if words[0] in ("git", "cd"):
        return
    if words[0] == "source":  # the environment that the Makefile makes
        assert f"BIN := {Path(words[1]).parent}\n" in (ROOT / "Makefile").read_text(encoding="utf-8")
        return
    if words[0] == "make":
        subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, check=True, capture_output=True)
        return
    if "pytest" in words:
        assert (ROOT / words[words.index("pytest") + 1]).is_dir()
        return
    at = next(i for i, word in enumerate(words) if word in ARGUMENTS)
    argv = list(words[at + 1 :])
    config = [word for word in words[:at] if word.endswith(".yaml")]
    assert all((ROOT / path).is_file() for path in config)
    recipe = [ROOT / argv[0]] if argv and argv[0].endswith(".yaml") else []
    assert all(path.is_file() for path in recipe)
    on_cpu = ["--use_cpu", "true"] if words[at].startswith("run_") else []  # bf16 is refused without a GPU otherwise
    argv = argv[len(recipe) :]
    if words[at] == "app.py":
        argv = app.join_models(argv)
    given = parse_recipe(ARGUMENTS[words[at]], [*map(str, recipe), *argv, *on_cpu])[-1]
    flags: dict[str, list[str]] = {}
    for word in argv:
        if word.startswith("--"):
            flags[word.removeprefix("--")] = []
        else:
            flags[list(flags)[-1]].append(word)
    for key, values in flags.items():
        if key.startswith("no_") and key not in given:
            assert key.removeprefix("no_") not in given and not values
            continue
        found = given[key] if isinstance(given[key], list) else [given[key]]
        for value, shown in zip(found, values, strict=bool(values)):  # a switch has no value
            number = re.fullmatch(r"[\d.e-]+", shown)
            assert str(value) == shown or (number and float(value) == float(shown))


def test_the_python_compiles_and_names_what_exists():
    for code in blocks("python"):
        compile(code, "README.md", "exec")
        exec("\n".join(line for line in code.splitlines() if line.startswith("from ")), {})


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_tables_are_those_of_the_result_files(path):
    text = path.read_text(encoding="utf-8")
    assert render(text) == text, "run `make readme`"


def test_every_block_of_numbers_is_shown_once():
    assert sorted(re.findall(r"<!-- (\w+):begin -->", "".join(TEXTS.values()))) == sorted(BLOCKS)


@pytest.mark.parametrize("name", TEXTS)
def test_the_links_lead_to_files_and_headings(name):
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", TEXTS[name]):
        page, _, anchor = target.partition("#")
        path = ROOT / Path(name).parent / page if page else ROOT / name
        assert path.is_file(), target
        headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert not anchor or anchor in [re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings], target
