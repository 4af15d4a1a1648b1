"""Mistakes that users make in recipes, tables and commands: each is one small change to what works."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import yaml


class Mistake(NamedTuple):
    """A name, and the words of a command after its script, made in a folder of its own."""

    name: str
    script: str
    words: Callable[[Path], list[str]]


Recipe = dict[str, Any]  # one that works, with absolute paths


def in_recipes(script: str, recipe: Recipe) -> list[Mistake]:
    """Mistakes in the text of a recipe, and in its values."""

    def changed(name: str, text: str | bytes) -> Mistake:
        def words(folder: Path) -> list[str]:
            data = text if isinstance(text, bytes) else text.encode()
            (folder / "recipe.yaml").write_bytes(data)
            return [str(folder / "recipe.yaml"), "--output_dir", str(folder / "run")]

        return Mistake(f"recipe: {name}", script, words)

    whole = yaml.safe_dump(recipe)

    def line(key: str, written: str) -> Mistake:
        text = yaml.safe_dump({other: value for other, value in recipe.items() if other != key})
        return changed(f"{key}: {written}", f"{text}{key}: {written}\n")

    texts: dict[str, str | bytes] = {
        "empty": "", "a list": "- a\n- b\n", "a word": "distilbert", "only a comment": "# nothing\n",
        "a tab": f"{whole}\tseed: 1\n", "an open quote": f'{whole}run_name: "mine\n',
        "an open bracket": f"{whole}report_to: [none\n", "a key twice": f"{whole}seed: 1\nseed: 1\n",
        "no space after the colon": f"{whole}seed:1\n", "indented": f"{whole}  seed: 1\n",
        "an equals sign": f"{whole}seed = 1\n", "latin-1": f"{whole}run_name: m\xe4use\n".encode("latin-1"),
        "utf-16": whole.encode("utf-16"), "binary": bytes(range(256)), "NUL": f"{whole}\0".encode(),
        "two documents": f"{whole}---\n{whole}", "json with a comma too many": json.dumps(recipe)[:-1] + ",,}",
        "a Python object": f"{whole}run_name: !!python/object/apply:os.system ['touch /tmp/never']\n",
        "an unknown alias": f"{whole}run_name: *there\n", "an unknown tag": f"{whole}run_name: !env HOME\n",
        "a number as a key": f"{whole}1: 2\n", "a list as a key": f"{whole}[a, b]: 2\n",
    }  # fmt: skip
    lines = {
        # slips of the keyboard, in keys that the scripts share
        "learning_rte": "0.1", "lora_rank_": "8", "maxlength": "64", "num_train_epoch": "3", "trainfile": "a.csv",
        "per_device_batch_size": "8", "gradient_acumulation_steps": "2", "save_step": "5", "outputdir": "x",
        "evaluation_strategy": "epoch", "Learning_Rate": "0.1", "warmup_ratio_": "0.1",
        # another type
        "learning_rate": "fast", "max_steps": "many", "num_train_epochs": "three", "lora_r": "1.5", "seed": "a",
        "use_peft": "maybe", "max_length": "[64]", "per_device_train_batch_size": "{a: 1}", "save_steps": "[]",
        "weight_decay": "null", "logging_steps": "~", "test_fraction": "10%", "max_eval_samples": "all",
        # another choice
        "lr_scheduler_type": "linearly", "optim": "adamm", "eval_strategy": "sometimes", "save_strategy": "often",
        "report_to": "mlflo", "dtype": "float12", "train_sampling_strategy": "by_length",
        # out of range
        "lora_dropout": "2", "lora_alpha": "-1", "validation_fraction": "1.5", "near_duplicate_threshold": "-0.1",
        "per_device_eval_batch_size": "0", "gradient_accumulation_steps": "0", "warmup_steps": "-3",
        "max_train_samples": "0", "label_smoothing_factor": "1", "save_total_limit": "0", "max_grad_norm": ".nan",
        "max_predict_samples": "-1", "min_input_words": "-2", "lora_target_modules": "no_such_layer",
        # without effect, or without what it needs
        "early_stopping_patience": "-2", "dataset_revision": "main", "load_best_model_at_end": "1.5",
        "metric_for_best_model": "beauty", "strip_pattern": "'('", "language": "Englisch", "license": "MY OWN",
        "model_name_or_path": "/no/such/model", "train_file": "/no/such/file.csv", "test_file": "rows.xlsx",
        "text_column": "no_such_column", "group_column": "no_such_column", "keep_columns": "[no_such_column]",
        "fp16": "true", "token": "hf_secret", "resume_from_checkpoint": "x", "device_map": "auto", "deepspeed": "z",
        "extra_metrics": "[no_such_metric]", "adam_beta1": "1.5",
    }  # fmt: skip
    return [changed(*pair) for pair in texts.items()] + [line(*pair) for pair in lines.items()]


def in_tables(script: str, recipe: Recipe, columns: list[str], ending: str) -> list[Mistake]:
    """Mistakes in the training file; `columns` are a text and what is to be predicted."""
    good = Path(recipe["train_file"]).read_bytes()
    text, target = columns
    rows = [{text: f"words of row {i} about {'abc'[i % 3]}", target: "abc"[i % 3]} for i in range(60)]

    def jsonl(rows: list[Any]) -> bytes:
        return "".join(json.dumps(row) + "\n" for row in rows).encode()

    tables: dict[str, tuple[str, bytes]] = {
        "an empty file": (f"rows.{ending}", b""), "only a break": (f"rows.{ending}", b"\n"),
        "only a header": ("rows.csv", f"{text},{target}\n".encode()),
        "another ending": ("rows.txt", good), "no ending": ("rows", good), "Excel": ("rows.xlsx", b"PK\x03\x04"),
        "csv that is jsonl": ("rows.csv", jsonl(rows)), "jsonl that is csv": ("rows.jsonl", b"a,b\n1,2\n"),
        "json that is cut": ("rows.json", json.dumps(rows).encode()[:-9]), "json of a word": ("rows.json", b'"a"'),
        "json of numbers": ("rows.json", b"[1, 2, 3]"), "jsonl with a cut line": ("rows.jsonl", jsonl(rows)[:-9]),
        "jsonl of lists": ("rows.jsonl", jsonl([list(row.values()) for row in rows])),
        "parquet that is none": ("rows.parquet", b"PAR1 no"), "gz that is none": ("rows.csv.gz", b"no"),
        "gz that is cut": ("rows.jsonl.gz", gzip.compress(jsonl(rows))[:-20]),
        "not UTF-8": ("rows.jsonl", jsonl(rows) + b'{"' + text.encode() + b'": "\xff\xfe"}\n'),
        "binary": (f"rows.{ending}", bytes(range(256)) * 9),
        "a column missing": ("rows.jsonl", jsonl([{text: row[text]} for row in rows])),
        "a column in capitals": ("rows.jsonl", jsonl([{text.upper(): row[text], target: "a"} for row in rows])),
        "a column twice": ("rows.csv", f"{text},{text},{target}\na b c,b,c\n".encode()),
        "a cell too many": ("rows.csv", f"{text},{target}\na b c,b,c\nd,e\n".encode()),
        "an open quote": ("rows.csv", f'{text},{target}\n"a b c,b\nd,e\n'.encode()),
        "no text at all": ("rows.jsonl", jsonl([row | {text: ""} for row in rows])),
        "no target at all": ("rows.jsonl", jsonl([row | {target: ""} for row in rows])),
        "null targets": ("rows.jsonl", jsonl([row | {target: None} for row in rows])),
        "one row": ("rows.jsonl", jsonl(rows[:1])), "two rows": ("rows.jsonl", jsonl(rows[:2])),
        "the same row": ("rows.jsonl", jsonl(rows[:1] * 60)),
        "texts that are lists": ("rows.jsonl", jsonl([row | {text: [1, 2]} for row in rows])),
        "texts that are maps": ("rows.jsonl", jsonl([row | {text: {"a": 1}} for row in rows])),
        "targets that are maps": ("rows.jsonl", jsonl([row | {target: {"a": 1}} for row in rows])),
    }  # fmt: skip

    def of(name: str, file: str, content: bytes) -> Mistake:
        def words(folder: Path) -> list[str]:
            (folder / file).write_bytes(content)
            values = recipe | {"train_file": str(folder / file), "text_column": text}
            (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
            return [str(folder / "recipe.yaml"), "--output_dir", str(folder / "run")]

        return Mistake(f"table: {name}", script, words)

    return [of(name, *table) for name, table in tables.items()]


def in_commands(script: str, recipe: Recipe) -> list[Mistake]:
    """Mistakes on the command line of a training script."""
    commands: dict[str, list[str]] = {
        "no recipe there": ["no.yaml"], "a folder as recipe": ["."], "a recipe as flag": ["--recipe", "{recipe}"],
        "two recipes": ["{recipe}", "{recipe}"], "an unknown flag": ["{recipe}", "--learning_rat", "1"],
        "a flag without a value": ["{recipe}", "--seed"], "a flag twice": ["{recipe}", "--seed", "1", "--seed", "2"],
        "a value too many": ["{recipe}", "--seed", "1", "2"], "one dash": ["{recipe}", "-seed", "1"],
        "no dash": ["{recipe}", "seed", "1"], "a word for a number": ["{recipe}", "--seed", "one"],
        "no_ with a value": ["{recipe}", "--no_seed=1"], "--no of nothing": ["{recipe}", "--no_such_thing"],
        "an equals sign alone": ["{recipe}", "--seed="], "an empty value": ["{recipe}", "--train_file", ""],
        "another spelling": ["{recipe}", "--use-pefft", "true"], "a choice that is none": ["{recipe}", "--optim", "x"],
        "a launcher's flag": ["{recipe}", "--num_processes", "2"], "a config file": ["{recipe}", "--config_file", "x"],
        "a path that does not exist": ["{recipe}", "--train_file", "nowhere.csv"],
        "an output folder that is a file": ["{recipe}", "--output_dir", "{recipe}"],
        "an output folder in /proc": ["{recipe}", "--output_dir", "/proc/run"],
    }  # fmt: skip

    def of(name: str, given: list[str]) -> Mistake:
        def words(folder: Path) -> list[str]:
            path = folder / "recipe.yaml"
            path.write_text(yaml.safe_dump(recipe))
            words = [word.replace("{recipe}", str(path)) for word in given]
            return words if "--output_dir" in words else [*words, "--output_dir", str(folder / "run")]

        return Mistake(f"command: {name}", script, words)

    return [of(*pair) for pair in commands.items()]


def of_tools(model: Path, rows: Path) -> list[Mistake]:
    """Mistakes on the command lines of predict.py, sweep.py and app.py. `model` is a finished run."""
    given: dict[str, tuple[str, list[str]]] = {
        "no text": ("predict.py", ["--model", "{model}"]),
        "no model": ("predict.py", ["--text", "a"]),
        "text and file": ("predict.py", ["--model", "{model}", "--text", "a", "--input_file", "{rows}"]),
        "a model that is not there": ("predict.py", ["--model", "/no/such/model", "--text", "a b c"]),
        "a model that is a file": ("predict.py", ["--model", "{rows}", "--text", "a b c"]),
        "a model that is another folder": ("predict.py", ["--model", "{folder}", "--text", "a b c"]),
        "an input that is not there": ("predict.py", ["--model", "{model}", "--input_file", "no.csv"]),
        "an input of another kind": ("predict.py", ["--model", "{model}", "--input_file", "{model}/report.md"]),
        "an output in no folder": (
            "predict.py", ["--model", "{model}", "--input_file", "{rows}", "--output_file", "no/such/out.jsonl"],
        ),
        "an output that is there": (
            "predict.py", ["--model", "{model}", "--input_file", "{rows}", "--output_file", "{there}"],
        ),
        "the input as output": (
            "predict.py", ["--model", "{model}", "--input_file", "{rows}", "--output_file", "{rows}", "--overwrite"],
        ),
        "resume without a file": ("predict.py", ["--model", "{model}", "--text", "a b c", "--resume", "true"]),
        "a batch of none": ("predict.py", ["--model", "{model}", "--text", "a b c", "--batch_size", "0"]),
        "top 0": ("predict.py", ["--model", "{model}", "--text", "a b c", "--top_k", "0"]),
        "tokens of a classifier": ("predict.py", ["--model", "{model}", "--text", "a b", "--max_new_tokens", "5"]),
        "an empty text": ("predict.py", ["--model", "{model}", "--text", ""]),
        "a corpus that is not there": ("predict.py", ["--model", "{model}", "--text", "a b", "--corpus_file", "no"]),
        "no base model": ("predict.py", ["--model", "{model}", "--text", "a b", "--base_model", "no"]),
        "an unknown flag": ("predict.py", ["--model", "{model}", "--txt", "a b"]),
        "no sweep": ("sweep.py", ["no.yaml"]), "no arguments": ("sweep.py", []),
        "a recipe as sweep": ("sweep.py", ["recipes/distilbert_lora.yaml"]),
        "a comparison with nothing": ("sweep.py", ["--compare", "{folder}", "{folder}"]),
        "an app without a model": ("app.py", []),
        "an app of a model that is not there": ("app.py", ["--model", "/no/such/model"]),
        "a port that is none": ("app.py", ["--model", "{model}", "--port", "http"]),
    }  # fmt: skip

    def of(name: str, script: str, words: list[str]) -> Mistake:
        def made(folder: Path) -> list[str]:
            (folder / "there").write_text("kept")
            places = {"{model}": model, "{rows}": rows, "{folder}": folder, "{there}": folder / "there"}
            text = "\n".join(words)
            for place, path in places.items():
                text = text.replace(place, str(path))
            return text.split("\n") if words else []

        return Mistake(f"{script}: {name}", script, made)

    return [of(name, *pair) for name, pair in given.items()]
