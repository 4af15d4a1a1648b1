"""Every command in the README runs, or parses to its arguments where it needs a GPU, the Hub or minutes."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

import app
import predict
import run_classification
import run_hierarchical
import run_qa_sft
import run_summarization
from utils.arguments import DataArguments, parse_recipe
from utils.data.__main__ import ColumnArguments
from utils.metrics.__main__ import MetricsArguments
from utils.safety.__main__ import SafetyArguments
from utils.sweeps.arguments import SweepArguments

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [shlex.split(line, comments=True) for block in BLOCKS for line in block.splitlines() if line.strip()]
ARGUMENTS = {
    "run_qa_sft.py": run_qa_sft.ARGUMENTS,
    "run_classification.py": run_classification.ARGUMENTS,
    "run_hierarchical.py": run_hierarchical.ARGUMENTS,
    "run_summarization.py": run_summarization.ARGUMENTS,
    "predict.py": (predict.PredictArguments,),
    "app.py": (app.AppArguments,),
    "sweep.py": (SweepArguments,),
    "utils.safety": (SafetyArguments,),
    "utils.data": (DataArguments, ColumnArguments),
    "utils.metrics": (MetricsArguments,),
}
RESULTS = ROOT / "benchmarks" / "results"
# result file -> the metrics of its table in the README and the systems of its columns
TABLES = {
    "quickstart_qa.json": (
        {"perplexity": "perplexity", "ROUGE-L": "rougeL"},
        ("test_", "base_test_", "baseline_nearest_question_test_"),
    ),
    "quickstart_classification.json": (
        {"macro F1": "macro_f1", "accuracy": "accuracy"},
        ("test_", "baseline_tfidf_svm_test_", "baseline_encoder_alone_test_"),
    ),
    "quickstart_hierarchical.json": (
        {"chapter macro F1": "parent_macro_f1", "block macro F1": "child_macro_f1"},
        ("test_", "baseline_tfidf_svm_test_", "baseline_tfidf_svm_per_node_test_"),
    ),
    "quickstart_summarization.json": (
        {"ROUGE-1": "rouge1", "left out": "omission", "hallucinated": "hallucination"},
        ("test_", "baseline_lead_test_", "baseline_nearest_source_test_"),
    ),
}


def test_the_readme_has_commands_of_every_kind():
    programs = {word for words in COMMANDS for word in words}
    assert len(COMMANDS) >= 8 and {"make", *ARGUMENTS} <= programs


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_of_the_readme_parses(words):
    if words[0] == "make":
        subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, check=True, capture_output=True)
        return
    at = next(i for i, word in enumerate(words) if word in ARGUMENTS)
    argv = words[at + 1 :]
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
        found = given[key] if isinstance(given[key], list) else [given[key]]
        for value, shown in zip(found, values, strict=True):
            number = re.fullmatch(r"[\d.e-]+", shown)
            assert str(value) == shown or (number and float(value) == float(shown))


def test_the_head_of_the_readme_makes_a_space_of_this_repository():
    head = yaml.safe_load(README.split("---\n")[1])
    pins = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    assert head["sdk"] == "gradio" and re.search(rf"^gradio=={re.escape(head['sdk_version'])}\b", pins, re.MULTILINE)
    assert (ROOT / head["app_file"]).is_file() and re.fullmatch(r"3\.1\d", head["python_version"])
    assert head["license"] == "apache-2.0" and "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_the_python_of_the_readme_compiles_and_names_what_exists():
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    compile(code, "README.md", "exec")
    exec("\n".join(line for line in code.splitlines() if line.startswith("from ")), {})


@pytest.mark.parametrize("name", TABLES)
def test_the_numbers_of_the_readme_are_those_of_the_result_file(name):
    results = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    metrics, prefixes = TABLES[name]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in README.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if row[0] in metrics]
    assert len(rows) == len(metrics)
    for metric, *cells in rows:
        for prefix, cell in zip(prefixes, cells, strict=True):
            key = prefix + metrics[metric]
            numbers = [float(number) for number in re.findall(r"\d+\.\d+", cell)]
            expected = [results[key], *results[f"{key}_ci95"]] if key in results else []
            assert numbers == pytest.approx(expected, abs=0.051 if metric == "perplexity" else 0.00051)


def test_the_speed_in_the_readme_is_that_of_the_result_file():
    results = json.loads((RESULTS / "classification_speed.json").read_text(encoding="utf-8"))
    training, predicting = re.search(
        r"training is (\d[\d.]*) times .*?prediction (\d[\d.]*) times", README, re.DOTALL
    ).groups()
    assert float(training) == pytest.approx(results["train_ours_over_official"], abs=0.051)
    assert float(predicting) == pytest.approx(results["predict_ours_over_pipeline"], abs=0.051)


def test_the_factuality_in_the_readme_is_that_of_the_result_file():
    results = json.loads((RESULTS / "factuality.json").read_text(encoding="utf-8"))
    omission, hallucination = re.search(
        r"omission rate by (0\.\d+) .*?hallucination rate by (0\.\d+)", README, re.DOTALL
    ).groups()
    assert float(omission) == pytest.approx(results["r_omission_OmissionRate_held_out"], abs=0.0051)
    assert float(hallucination) == pytest.approx(results["r_invention_HallucinationRate_held_out"], abs=0.0051)


def test_the_tree_of_the_readme_names_every_module():
    for path in (ROOT / "utils").rglob("*.py"):
        assert path.name in README or path.name == "__init__.py"


def test_what_the_readme_says_of_sweep_and_safety_checks_stands_in_their_result_files():
    text = " ".join(README.split())
    sweep = json.loads((RESULTS / "quickstart_sweep.json").read_text(encoding="utf-8"))
    chosen = next(row for row in sweep["configurations"] if row["configuration"] == sweep["chosen"])
    low, high = chosen["ci95"]
    assert f"{chosen['difference']:+.3f} macro F1 [{low:+.3f}, {high:+.3f}]" in text and not sweep["more_than_noise"]
    safety = json.loads((RESULTS / "safety.json").read_text(encoding="utf-8"))
    lay = safety["lay"]["held_out"]
    for kind in ("emergencies", "harmful_requests", "interaction", "dose", "patient"):
        assert f"{lay[f'recall_{kind}']['count']} of {lay[f'recall_{kind}']['of']}" in text
    near, safe = lay["false_alarms_hard_negatives"], lay["false_alarms_safe"]
    assert f"{near['count']} false alarms on {near['of']} texts" in text and f"{safe['count']} on {safe['of']}" in text
    alarms = safety["medquad"]["questions_or_answers"]
    assert alarms["count"] == 0 and f"No alarm on {alarms['of']:,} texts" in text


def test_what_the_readme_says_of_confidence_and_settings_stands_in_their_result_files():
    text = " ".join(README.split())
    answers = json.loads((RESULTS / "quickstart_qa.json").read_text(encoding="utf-8"))
    low, high = (answers[f"test_rougeL_{part}_confident"] for part in ("least", "most"))
    assert f"a ROUGE-L of {low:.3f} in the third of lowest confidence and of {high:.3f} in the highest" in text
    settings = json.loads((RESULTS / "answer_settings.json").read_text(encoding="utf-8"))
    usual, concise = settings["as_evaluated"], settings["beams_4_penalty_0"]
    assert concise["words_ci95"][1] < usual["words_ci95"][0] and concise["delta_rougeL_ci95"][0] > 0
