import re
import shlex

import pytest
import yaml
from conftest import ROOT

import run_classification
import run_hierarchical
import run_qa_sft
import run_summarization
from utils.arguments import parse_recipe

RECIPES = sorted(p for p in (ROOT / "recipes").rglob("*.yaml") if not {"accelerate", "sweeps"} & set(p.parts))
SCRIPTS = {
    "run_qa_sft.py": run_qa_sft.ARGUMENTS,
    "run_classification.py": run_classification.ARGUMENTS,
    "run_hierarchical.py": run_hierarchical.ARGUMENTS,
    "run_summarization.py": run_summarization.ARGUMENTS,
}
GROUPS = ["Model", "Data", "Training", "Evaluation", "Output"]
NAMES = [str(path.relative_to(ROOT / "recipes")) for path in RECIPES]
ON_CPU = ["--use_cpu", "true"]  # bf16 is refused on a machine without a GPU otherwise

each_recipe = pytest.mark.parametrize("path", RECIPES, ids=NAMES)


def commands(path) -> list[list[str]]:
    """The commands in a recipe's header, without `accelerate launch`."""
    header = path.read_text(encoding="utf-8").split("\n# Model\n")[0]
    found = [shlex.split(line.lstrip("# ")) for line in header.splitlines() if "accelerate launch" in line]
    return [words[words.index(next(w for w in words if w.startswith("run_"))) :] for words in found]


def parse(path, argv=()):
    script = commands(path)[0][0]
    flags = argv if "--use_cpu" in argv or "use_cpu" in path.read_text() else [*argv, *ON_CPU]
    return parse_recipe(SCRIPTS[script], [str(path), *flags])


def test_there_are_recipes_to_test():
    assert len(RECIPES) >= 3 and {"phi3_qlora.yaml", "phi2_qlora.yaml", "quickstart/qa.yaml"} <= set(NAMES)


@each_recipe
def test_a_recipe_parses_with_its_script(path):
    *_, given = parse(path)
    assert set(yaml.safe_load(path.read_text(encoding="utf-8"))) <= set(given)


@each_recipe
def test_the_commands_in_a_header_parse_and_name_this_recipe(path):
    found = commands(path)
    assert len(found) >= 2  # as it is, and with another value
    for script, recipe, *flags in found:
        assert ROOT / recipe == path and (ROOT / script).is_file()
        parse(path, flags)


@each_recipe
def test_a_recipe_has_the_five_groups_in_order_in_at_most_50_lines(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    groups = [m[1] for line in lines if (m := re.match(r"# ([A-Z]\w+)(?::.*)?$", line)) and m[1] in GROUPS]
    assert groups == GROUPS
    assert len(lines) <= 50 and max(map(len, lines)) <= 128
    assert lines[0].startswith("# ") and lines[0].endswith(".")


@each_recipe
def test_a_recipe_has_no_empty_key_and_no_rows_of_comment_only_keys(path):
    assert all(value is not None for value in yaml.safe_load(path.read_text(encoding="utf-8")).values())
    assert not re.search(r"^# *\w+: (true|false|\d[\d.e-]*)$", path.read_text(encoding="utf-8"), re.MULTILINE)


@each_recipe
def test_the_batch_arithmetic_of_a_recipe_is_that_of_its_keys(path):
    training = parse(path)[-2]
    line = re.search(r"^# Training: (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)[1]
    numbers = [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", line)]
    size, steps, processes, total = numbers[:4]
    packing = getattr(training, "packing", False)  # fills one sequence of max_length tokens a row
    rows = training.max_length if packing else 1
    assert (size, steps, processes) == (
        training.per_device_train_batch_size * rows, training.gradient_accumulation_steps, 1,
    )  # fmt: skip
    assert total == size * steps * processes


@pytest.mark.parametrize("path", sorted((ROOT / "recipes" / "accelerate").glob("*.yaml")), ids=lambda path: path.name)
def test_an_accelerate_configuration_leaves_precision_to_the_recipe(path):
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert values["mixed_precision"] == "no" and values["num_processes"] >= 1
    assert values["distributed_type"] in ("NO", "MULTI_GPU")  # MULTI_CPU starts one process without a word
