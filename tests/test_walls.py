"""The structure that a reader relies on: imports go one way, and a script that only trains carries little along."""

import ast
import shutil
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from conftest import ROOT

SCRIPTS = ("run_qa_sft.py", "run_classification.py", "run_hierarchical.py", "run_summarization.py")
CORE = {
    "adapters", "arguments", "chat", "chat_tokenizer", "chunking", "conflicts", "control_tokens", "data", "encoding",
    "examples", "extra_metrics", "generation", "heads", "hierarchy", "hub", "json_files", "keys", "losses", "modeling",
    "multilabel", "overlap", "positions", "prompts", "run", "sampling", "seq2seq", "task", "templates", "tokenizers",
    "training", "weights", "words",
}  # fmt: skip
# room -> what it may import beside itself and the core; nothing reads a later stage
ROOMS = {
    **dict.fromkeys(CORE, set()),
    "metrics": {"factuality"},  # its command scores facts, too
    "factuality": set(),
    "safety": {"inference"},  # its second stage is a classifier
    "evaluation": {"metrics", "factuality", "logits"},
    "reporting": {"metrics", "evaluation", "push"},
    "push": set(),
    "privacy": set(),
    "logits": set(),
    "inputs": set(),
    "shown_examples": set(),
    "ordered_lines": set(),
    "runtimes": set(),
    "loading": {"runtimes"},
    "inference": {"metrics", "evaluation", "factuality", "logits", "shown_examples", "loading", "runtimes"},
    "retrieval": {"metrics", "evaluation", "factuality"},
    "citations": {"metrics", "evaluation", "factuality", "retrieval"},
    "serving": {
        "evaluation",
        "factuality",
        "inference",
        "retrieval",
        "citations",
        "safety",
        "shown_examples",
        "runtimes",
    },
    "sweeps": {"metrics", "evaluation", "factuality", "reporting"},
    "quickstart": {"evaluation"},
    "export": {"metrics", "evaluation", "factuality", "logits", "loading", "reporting", "runtimes"},
}
COMMANDS = {"utils.evaluation.__main__": {"reporting"}}  # an entry: it ends with the report


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in sorted((ROOT / "utils").rglob("*.py"))}


def imported(tree: ast.AST) -> set[str]:
    """The modules of utils that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (submodules & MODULES.keys()) or {node.module}
    return found & MODULES.keys()


@cache
def imports_of(name: str) -> frozenset[str]:
    return frozenset(imported(ast.parse(MODULES[name].read_text(encoding="utf-8"))))


def room(name: str) -> str:
    return name.split(".")[1]


def test_every_room_is_known():
    assert {room(name) for name in MODULES if "." in name} == ROOMS.keys()


def test_imports_have_no_circle():
    order = list(TopologicalSorter({name: imports_of(name) for name in MODULES}).static_order())
    assert len(order) == len(MODULES)


@pytest.mark.parametrize("name", [name for name in MODULES if "." in name])
def test_a_room_reads_only_earlier_stages(name):
    allowed = CORE | {room(name)} | ROOMS[room(name)] | COMMANDS.get(name, set())
    assert {room(found) for found in imports_of(name) if "." in found} <= allowed


def test_nothing_in_utils_imports_a_script():
    for name, path in MODULES.items():
        text = path.read_text(encoding="utf-8")
        assert not any(f"import {script[:-3]}" in text or f"from {script[:-3]} " in text for script in SCRIPTS), name


# ----- What a script carries along


def training_part(path: Path) -> ast.Module:
    """A script without sections 6 to 8, and without the functions and imports that only these use."""
    lines = path.read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("    # ----- 6. "))
    end = next(i for i, line in enumerate(lines) if line.startswith("if __name__"))
    tree = ast.parse("\n".join(lines[:start] + ["", ""] + lines[end:]))
    while True:
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} | {"utils"}
        kept = []
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                node.names = [a for a in node.names if (a.asname or a.name).split(".")[0] in used]
                kept += [node] if node.names else []
            elif not isinstance(node, ast.FunctionDef) or node.name in used:
                kept.append(node)
        if len(kept) == len(tree.body):
            return tree
        tree.body = kept


def carried(tree: ast.Module) -> set[str]:
    """Every module of utils that a file needs, directly or not."""
    found, waiting = set(), [*imported(tree)]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += imports_of(name)
    return found


def size_of(names: set[str]) -> tuple[int, int]:
    texts = [MODULES[name].read_text(encoding="utf-8") for name in names]
    return sum(bool(text) for text in texts), sum(len(text.splitlines()) for text in texts)


@pytest.mark.parametrize("script", SCRIPTS)
def test_training_carries_few_files_and_no_evaluation(script):
    names = carried(training_part(ROOT / script))
    files, lines = size_of(names)
    most = {
        "run_qa_sft.py": (36, 6349), "run_classification.py": (36, 6271), "run_hierarchical.py": (35, 6409),
        "run_summarization.py": (35, 6341),
    }[script]  # fmt: skip
    assert files <= most[0] and lines <= most[1], sorted(names)
    assert {room(name) for name in names - {"utils"}} <= CORE


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_can_be_read_in_one_sitting(script):
    text = (ROOT / script).read_text(encoding="utf-8")
    (main,) = (n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef) and n.name == "main")
    assert len(text.splitlines()) <= 300 and main.end_lineno - main.lineno + 1 <= 120


# Runs a script with the libraries of this process, and with the modules of `utils` in its own folder
CARRIED_RUN = """
import os, runpy, sys
for name in [name for name in sys.modules if name.split(".")[0] == "utils"]:
    del sys.modules[name]
folder, script, *flags = sys.argv[1:]
os.chdir(folder)
sys.path[0], sys.argv = folder, [script, *flags]
runpy.run_path(script, run_name="__main__")
"""


def test_a_script_carried_away_without_its_evaluation_trains(launcher, tiny_llama, tiny_bert, tiny_t5, data, tmp_path):
    own = {
        "run_qa_sft.py": (tiny_llama, "q_proj", {"train_file": data.qa}),
        "run_classification.py": (
            tiny_bert, "query", {"train_file": data.notes, "text_column": "note", "label_column": "ward"},
        ),
        "run_hierarchical.py": (
            tiny_bert, "query",
            {"train_file": data.tree, "text_column": "note", "parent_column": "group", "child_column": "ward"},
        ),
        "run_summarization.py": (
            tiny_t5, "q", {"train_file": data.dialogues, "text_column": "dialogue", "summary_column": "note"},
        ),
    }  # fmt: skip
    same = {
        "output_dir": "run", "use_cpu": True, "bf16": False, "dtype": "float32", "use_peft": True, "max_steps": 2,
        "report_to": "none", "save_strategy": "no",
    }  # fmt: skip
    for script, (model, target, values) in own.items():
        tree, folder = training_part(ROOT / script), tmp_path / script
        for name in carried(tree):
            copy = folder / MODULES[name].relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(MODULES[name], copy)
        (folder / script).write_text(ast.unparse(tree), encoding="utf-8")
        values |= {"model_name_or_path": model, "lora_target_modules": target} | same
        argv = [part for key, value in values.items() for part in (f"--{key}", str(value))]
        done = launcher.run(CARRIED_RUN, [str(folder), script, *argv])
        assert done.code == 0 and (folder / "run" / "adapter_model.safetensors").exists(), done.stderr[-3000:]
