"""`sweep.py` with the real scripts: the sweeps of `recipes/`, what it refuses, one of tiny encoders, comparisons."""

import json
import re
import shlex
from pathlib import Path

import matplotlib.image
import pytest
import yaml
from conftest import ROOT, Run, flags, read_jsonl, run_here, write_rows, write_yaml

import run_classification
import run_hierarchical
import run_qa_sft
import run_summarization
from sweep import main
from utils.arguments import UserError
from utils.metrics.intervals import mcnemar
from utils.sweeps.arguments import SweepArguments
from utils.sweeps.compare import SHOWN, compare_runs
from utils.sweeps.plan import EVAL_METRICS

SWEEPS = sorted((ROOT / "recipes" / "sweeps").glob("*.yaml"))
SCRIPTS = {
    "run_qa_sft.py": run_qa_sft, "run_classification.py": run_classification,
    "run_hierarchical.py": run_hierarchical, "run_summarization.py": run_summarization,
}  # fmt: skip
GRID = {
    "script": "run_classification.py", "recipe": "recipes/quickstart/classification.yaml", "metric": "eval_macro_f1",
    "direction": "maximize", "seeds": [1, 2], "grid": {"learning_rate": ["1e-4", 1e-3]},
}  # fmt: skip


def sweep(*argv: str | Path) -> Run:
    """Run `sweep.py` in this process, which starts no run where a mistake is found or `--dry_run` is given."""
    return run_here(lambda args, given: main(args), (SweepArguments,), list(map(str, argv)), drawn=True)


@pytest.fixture
def sweep_file(tmp_path):
    """Write a sweep's file: `GRID`, with `values` on top; None leaves a key out."""

    def write(**values) -> Path:
        merged = GRID | {"output_dir": str(tmp_path / "sweep")} | values
        return write_yaml(tmp_path / "sweep.yaml", {key: value for key, value in merged.items() if value is not None})

    return write


# ----- The sweeps in recipes/


def test_every_kind_of_sweep_is_among_the_recipes():
    kinds = [
        key for path in SWEEPS for key in ("configurations", "grid", "search") if key in yaml.safe_load(path.open())
    ]
    assert len(SWEEPS) >= 5 and set(kinds) == {"configurations", "grid", "search"}


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.name)
def test_a_sweep_of_the_recipes_is_checked_and_each_of_its_commands_parses(path):
    done = sweep(path, "--dry_run")
    assert done.code == 0, done.stderr
    values = yaml.safe_load(path.read_text())
    commands = [shlex.split(line) for line in done.stdout.splitlines() if line.startswith("accelerate launch")]
    script = SCRIPTS[values["script"]]
    seen = set()
    for words in commands:
        at = words.index(values["script"])
        assert words[at + 1] == values["recipe"] and "--evaluate_test false" in shlex.join(words)
        *_, given = run_parse(script, words[at + 1 :])
        assert given["split_seed"] == 42 and not given["evaluate_test"]
        seen.add((given["output_dir"], given["seed"]))
    assert len(seen) == len(commands) >= len(values["seeds"]) - 1
    header = path.read_text().split("script:")[0]
    assert f"python sweep.py recipes/sweeps/{path.name}" in header and header.startswith("# ")
    assert max(map(len, path.read_text().splitlines())) <= 120


def run_parse(script, argv):
    from utils.arguments import parse_recipe

    return parse_recipe(script.ARGUMENTS, argv if "--use_cpu" in argv else [*argv, "--use_cpu", "true"])


def test_a_grid_has_every_combination_and_flags_win_over_the_file(sweep_file):
    path = sweep_file(grid={"learning_rate": ["1e-4", 1e-3], "class_imbalance": ["none", "focal"]}, jobs=2)
    done = sweep(path, "--dry_run", "--seeds", "5")
    folders = re.findall(r"--output_dir \S+/runs/(\S+)", done.stdout)
    assert folders == [
        f"learning_rate={rate},class_imbalance={way}-seed5" for rate in ("1e-4", "0.001") for way in ("none", "focal")
    ]
    assert "--learning_rate 0.0001 " in done.stdout  # the number, where YAML has read a text
    assert not Path(path.parent / "sweep").exists()


# ----- Mistakes


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"grid": {"learning_rat": [1e-4]}}, "configuration `learning_rat=0.0001`: `learning_rat` is not a known"),
        ({"grid": {"max_steps": [1, "many"]}}, "configuration `max_steps=many`: `max_steps`"),
        ({"grid": {"class_imbalance": ["best"]}}, "configuration `class_imbalance=best`: `class_imbalance`"),
        ({"grid": {}}, "`grid` is empty"),
        ({"grid": {"learning_rate": []}}, "`grid`, key `learning_rate`"),
        ({"grid": {"learning_rate": 1e-4}}, "`grid`, key `learning_rate`"),
        ({"grid": {"learning_rate": [1e-4, "1e-4"]}}, "are identical"),
        ({"grid": {"seed": [1, 2]}}, "`grid` has `seed`"),
        ({"grid": {"split_seed": [1, 2]}}, "`grid` has `split_seed`"),
        ({"grid": {"learning_rate": list(range(1, 502))}}, "1,002 runs and `most_runs` is 1,000"),
        ({"grid": "learning_rate"}, "`grid`: str given, write `key: value` lines"),
        ({"grid": 3}, "`grid`: int given, write `key: value` lines"),
        ({"grid": None}, "give exactly one of `configurations`, `grid` and `search`"),
        ({"search": {"lora_r": {"choices": [4]}}}, "give exactly one of `configurations`, `grid` and `search`"),
        ({"grid": None, "configurations": {}}, "`configurations` is empty"),
        ({"grid": None, "configurations": {"a": {"lora_r": None}}}, "configuration `a`: `lora_r` has no value"),
        ({"grid": None, "configurations": {"a": 3}}, "configuration `a` is int"),
        ({"grid": None, "configurations": {"../a": {}}}, "configuration `../a`"),
        ({"grid": None, "configurations": {"a": {}, "b": {"seed": 1}}}, "configuration `b` has `seed`"),
        ({"grid": None, "configurations": {"a": {}, "b": {}}}, "configurations `a` and `b` are identical"),
        ({"grid": None, "search": {}}, "`search` is empty"),
        ({"grid": None, "search": {"lora_rr": {"low": 1, "high": 2}}}, "`search`: `lora_rr` is not a known key"),
        ({"grid": None, "search": {"max_steps": {"low": 0.5, "high": 2.5}}}, "`search`: `max_steps`"),
        ({"grid": None, "search": {"lora_r": {"choices": [4]}}, "seeds": [1]}, "`seeds` is [1]"),
        ({"overrides": {"learning_rat": 1}}, "`overrides`: `learning_rat` is not a known key: did you"),
        ({"metric": "eval_rouge1"}, "`metric` is eval_rouge1"),
        ({"metric": "test_macro_f1"}, "`metric` is test_macro_f1"),
        ({"metric": "eval_macro_f1_ci95"}, "`metric` is eval_macro_f1_ci95"),
        ({"direction": "up"}, "`direction`: invalid choice: 'up'"),
        ({"seeds": [1, 1]}, "`seeds` is [1, 1]"),
        ({"seeds": None}, "`seeds` is missing"),
        ({"script": "run_nothing.py"}, "`script` run_nothing.py does not exist"),
        ({"script": "predict.py"}, "`script` predict.py has no `ARGUMENTS`"),
        ({"recipe": "recipes/none.yaml"}, "recipe `recipes/none.yaml` cannot be read"),
        ({"config_file": "recipes/none.yaml"}, "`config_file` recipes/none.yaml"),
        ({"jobs": 0}, "`jobs` is 0"),
        ({"gridd": {}}, "`gridd` in"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_its_key_before_anything_runs(sweep_file, values, said):
    done = sweep(sweep_file(**values))
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.code == 2 and len(errors) == 1 and said in errors[0], done.stderr
    assert not (sweep_file().parent / "sweep").exists()


def test_more_runs_than_a_thousand_are_done_where_that_is_said(sweep_file):
    path = sweep_file(grid={"max_steps": [1, 2, 3]}, most_runs=5)
    assert "6 runs and `most_runs` is 5" in sweep(path).stderr
    assert sweep(path, "--most_runs", "6", "--dry_run").code == 0


# ----- A sweep of tiny encoders


@pytest.fixture(scope="module")
def tiny_sweep(tiny_bert, data, tmp_path_factory) -> Path:
    """Two learning rates, of which one learns nothing."""
    folder = tmp_path_factory.mktemp("sweep")
    recipe = {
        "model_name_or_path": str(tiny_bert), "use_peft": True, "lora_r": 4, "lora_alpha": 8,
        "lora_target_modules": ["query", "value"], "pooling": "mean", "train_file": str(data.notes),
        "text_column": "note", "label_column": "ward", "validation_fraction": 0.2, "test_fraction": 0.2,
        "near_duplicate_threshold": 1.0, "max_length": 32, "max_steps": 80, "learning_rate": 1e-3,
        "per_device_train_batch_size": 8,
        "use_cpu": True, "report_to": "none", "save_steps": 80, "dropout": 0.0, "output_dir": "outputs/none",
    }  # fmt: skip
    values = GRID | {"recipe": str(write_yaml(folder / "recipe.yaml", recipe)), "output_dir": str(folder / "sweep")}
    values |= {
        "seeds": [1],
        "grid": {"head_learning_rate": [1e-6, 5e-2]},
        "config_file": str(ROOT / "recipes/accelerate/cpu.yaml"),
    }
    done = sweep(write_yaml(folder / "sweep.yaml", values))
    assert done.code == 0, done.stderr[-3000:]
    (folder / "output.txt").write_text(done.stdout + done.stderr)
    return folder / "sweep"


def test_a_sweep_of_a_real_script_writes_what_won_and_tests_it_once(tiny_sweep):
    results = json.loads((tiny_sweep / "all_results.json").read_text())
    assert results["chosen"] == "head_learning_rate=0.05" and results["test"]["test_accuracy"] >= 0.6
    lines = (tiny_sweep / "hyperparameter_results.csv").read_text().splitlines()
    assert len(lines) == 3 and lines[0].startswith("configuration,seed,head_learning_rate,eval_macro_f1,eval_accuracy")
    assert lines[0].endswith("status,reason,minutes,peak_memory_gb,peak_gpu_memory_gb")
    assert not list(tiny_sweep.glob("runs/*/_private/predictions_test.jsonl"))
    assert (tiny_sweep / "best" / "_private" / "predictions_test.jsonl").is_file()
    image = matplotlib.image.imread(tiny_sweep / "plots" / "hyperparameter_comparison.png")
    assert image.shape[0] > 500 and len({tuple(pixel) for pixel in image[::7, ::7].reshape(-1, 4)}) > 5


def test_the_report_is_one_page_of_what_was_found(tiny_sweep):
    text = (tiny_sweep / "report.md").read_text()
    assert len(text.split()) < 600
    sections = ["Configurations", "Test", "Cost", "What to try next"]
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == sections
    assert "**`head_learning_rate=0.05`** has the best mean macro F1 on validation" in text
    assert "`head_learning_rate` is best at the higher end" in text


def test_the_winners_recipe_repeats_its_run(tiny_sweep, tmp_path):
    recipe = tiny_sweep / "best" / "recipe.yaml"
    values = yaml.safe_load(recipe.read_text())
    assert (values["head_learning_rate"], values["seed"], values["split_seed"]) == (0.05, 1, 42) and values[
        "evaluate_test"
    ]
    again = run_here(
        run_classification.main, run_classification.ARGUMENTS, [str(recipe), "--output_dir", str(tmp_path / "run")]
    )
    assert again.code == 0, again.stderr
    assert again.predictions == read_jsonl(tiny_sweep / "best" / "_private" / "predictions_test.jsonl")


def test_no_text_of_a_row_is_outside_the_private_folders(tiny_sweep, data):
    public = [path for path in tiny_sweep.rglob("*") if path.is_file() and "_private" not in path.parts]
    texts = [path.read_bytes().decode("utf-8", "replace") for path in public if path.suffix not in (".png", ".pt")]
    texts.append((tiny_sweep.parent / "output.txt").read_text())
    assert len(texts) > 20
    assert not any(secret in text for secret in data.secrets if secret.startswith("Patient") for text in texts)


def test_each_script_writes_the_metrics_that_are_known_before(tiny_sweep):
    written = [json.loads(path.read_text()) for path in tiny_sweep.glob("runs/*/all_results.json")]
    names = {key.removeprefix("eval_") for results in written for key in results if key.startswith("eval_")}
    names = {name for name in names if not name.endswith("_ci95")}
    assert len(names) > 8 and all(re.fullmatch(EVAL_METRICS["run_classification.py"], name) for name in names)


# ----- Comparisons


def write_run(folder: Path, predictions: list, references: list, **task) -> Path:
    rows = [{"id": f"r{i}", "source": f"source {i}", "prediction": p, "reference": r}
            for i, (p, r) in enumerate(zip(predictions, references, strict=True))]  # fmt: skip
    write_rows(folder / "_private" / "predictions_test.jsonl", rows)
    (folder / "task.json").write_text(json.dumps(task))
    return folder


def test_two_classifiers_are_compared_by_mcnemar_and_the_paired_difference(tmp_path):
    references = ["heart", "lung"] * 50
    worse = [r if i % 3 else "heart" for i, r in enumerate(references)]
    task = {"task": "classification", "labels": ["heart", "lung"]}
    folders = [str(write_run(tmp_path / name, p, references, **task)) for name, p in
               (("a", worse), ("b", references))]  # fmt: skip
    text = compare_runs(folders, tmp_path / "out")
    results = json.loads((tmp_path / "out" / "comparison.json").read_text())
    wrong = sum(p != r for p, r in zip(worse, references, strict=True))
    assert results["a_accuracy"] == pytest.approx(1 - wrong / 100) and results["b_accuracy"] == 1
    assert results["delta_b_accuracy"] == pytest.approx(wrong / 100)
    right = [p == r for p, r in zip(worse, references, strict=True)]
    assert (
        results["delta_b_accuracy_p"] == results["delta_b_accuracy_p_holm"] == mcnemar([True] * 100, right, range(100))
    )
    assert results["delta_b_macro_f1_ci95"][0] > 0 and "| accuracy | higher |" in text
    assert text in (tmp_path / "out" / "comparison.md").read_text()
    assert matplotlib.image.imread(tmp_path / "out" / "comparison.png").shape[0] > 200


def test_rows_in_another_order_are_put_in_order_and_the_same_runs_do_not_differ(tmp_path):
    paths = [["organs", "heart"], ["organs", "lung"], ["skin", "skin"]] * 4
    task = {"task": "hierarchical", "tree": {"levels": [["organs", "skin"], ["heart", "lung", "skin"]],
            "parents": [[0, 0, 1]]}}  # fmt: skip
    guesses = [paths[0]] * 12
    a = write_run(tmp_path / "a", guesses, paths, **task)
    b = write_run(tmp_path / "b", guesses, paths, **task)
    rows = (b / "_private" / "predictions_test.jsonl").read_text().splitlines()
    (b / "_private" / "predictions_test.jsonl").write_text("\n".join(reversed(rows)))
    compare_runs([str(a), str(b)], tmp_path / "out")
    results = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert results["a_path_accuracy"] == pytest.approx(1 / 3) and results["a_parent_macro_f1"] == pytest.approx(0.4)
    assert results["delta_b_path_accuracy"] == 0 and results["delta_b_path_accuracy_p"] == 1
    assert results["delta_b_child_macro_f1_ci95"] == [0, 0]


def test_three_summarizers_are_compared_with_the_first(tmp_path):
    references = [f"Fever {i} days, cough." for i in range(20)]
    system_names = {"a": ["Cough."] * 20, "b": references, "c": [f"Fever {i}" for i in range(20)]}
    folders = [str(write_run(tmp_path / n, p, references, task="summarization")) for n, p in system_names.items()]
    compare_runs(folders, tmp_path / "out")
    results = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert results["b_rouge1"] == pytest.approx(1) and results["delta_b_rouge1"] > results["delta_c_rouge1"] > 0
    p = sorted(results[f"delta_{name}_rouge1_p"] for name in "bc")
    assert sorted(results[f"delta_{name}_rouge1_p_holm"] for name in "bc")[0] == pytest.approx(2 * p[0])
    assert all(f"a_{metric}" in results for metric in SHOWN["summarization"])
    chinese = [f"患者发热{i}天，伴有咳嗽。" for i in range(20)]
    folders = [
        str(write_run(tmp_path / n, p, chinese, task="summarization")) for n, p in (("d", chinese), ("e", [""] * 20))
    ]
    compare_runs(folders, tmp_path / "out")
    results = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert results["d_rougeL"] == 1 and results["e_rougeL"] == 0 and "d_omission" not in results


def test_summaries_are_stemmed_as_in_their_runs_and_runs_that_differ_in_it_are_refused(tmp_path):
    references = [f"treating {i} patients" for i in range(20)]
    predictions = [f"treated {i} patient" for i in range(20)]
    stemmed = {"task": "summarization", "evaluation": {"use_stemmer": True}}
    folders = [str(write_run(tmp_path / name, predictions, references, **stemmed)) for name in "ab"]
    compare_runs(folders, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["a_rouge1"] == 1
    plain = write_run(tmp_path / "c", predictions, references, task="summarization", evaluation={"use_stemmer": False})
    with pytest.raises(UserError, match="with and without `use_stemmer`"):
        compare_runs([folders[0], str(plain)], tmp_path / "out")
    earlier = write_run(tmp_path / "d", predictions, references, task="summarization")  # which did not say
    compare_runs([str(plain), str(earlier)], tmp_path / "out")


def test_rows_that_any_run_puts_into_one_cluster_are_one(tmp_path):
    references = ["heart", "lung"] * 60
    task = {"task": "classification", "labels": ["heart", "lung"]}
    folders, found = [], []
    for name, cluster_of in (("rows", lambda i: i), ("patients", lambda i: i // 5), ("wards", lambda i: i // 4 % 15)):
        folder = write_run(tmp_path / name, references[::-1] if name == "rows" else references, references, **task)
        path = folder / "_private" / "predictions_test.jsonl"
        rows = [json.loads(line) | {"cluster": cluster_of(i)} for i, line in enumerate(path.read_text().splitlines())]
        write_rows(path, rows)
        folders.append(str(folder))
    for chosen in ((0, 1), (1, 0), (0, 2), (1, 2)):
        compare_runs([folders[i] for i in chosen], tmp_path / "out")
        found.append(json.loads((tmp_path / "out" / "comparison.json").read_text()))
    assert [own["test_clusters"] for own in found] == [
        24,
        24,
        15,
        3,
    ]  # wards repeat after 60 rows, and join the patients of 20
    assert found[0]["rows_accuracy_ci95"] == found[1]["rows_accuracy_ci95"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: folder / "none", "lacks task.json or _private/predictions_test.jsonl"),
        (lambda folder: write_run(folder, ["a"] * 9, ["a"] * 9, task="classification", labels=["a"]),
         "1 test rows differ"),
        (lambda folder: write_run(folder, ["a"] * 10, ["b"] * 10, task="classification", labels=["a", "b"]),
         "10 test rows differ"),
        (lambda folder: write_run(folder, ["a"] * 10, ["a"] * 10, task="qa"), "different tasks (classification, qa)"),
        (lambda folder: folder.parent / "first", "a folder twice"),
    ],
)  # fmt: skip
def test_runs_that_cannot_be_compared_are_refused_without_a_row_in_the_message(tmp_path, change, said):
    first = write_run(tmp_path / "first", ["a"] * 10, ["a"] * 10, task="classification", labels=["a", "b"])
    other = change(tmp_path / "other")
    done = sweep(*flags(compare=[first, other], output_dir=tmp_path / "out"))
    assert done.code == 2 and said in done.stderr and "source 1" not in done.stderr
    one = sweep(*flags(compare=[first], output_dir=tmp_path / "out"))
    assert one.code == 2 and "give two or more" in one.stderr


def test_a_run_of_the_sweep_is_compared_with_itself_as_no_difference(tiny_sweep, tmp_path):
    copy = tmp_path / "copy"
    (copy / "_private").mkdir(parents=True)
    for name in ("task.json", "_private/predictions_test.jsonl"):
        (copy / name).write_bytes((tiny_sweep / "best" / name).read_bytes())
    done = sweep(*flags(compare=[tiny_sweep / "best", copy], output_dir=tmp_path / "out"))
    results = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert done.code == 0 and results["delta_copy_accuracy"] == 0
    test = json.loads((tiny_sweep / "best" / "all_results.json").read_text())
    shown = [metric for metric in SHOWN["classification"] if f"test_{metric}" in test]  # others are of several labels
    assert {"accuracy", "macro_f1"} <= set(shown)
    for metric in shown:
        assert results[f"best_{metric}"] == pytest.approx(test[f"test_{metric}"])
