"""Effect of the class tree, the focal loss and LoRA on the ICD-10-CM titles of the quickstart.

    python -m benchmarks.hierarchy

- systems: the recipe, `run_classification.py` on the blocks alone (same encoder, rows, steps and `ensemble`; the
  chapter of a flat prediction is that of its block), and the recipe with the focal loss. Paired differences on test.
- losses and adapters: one epoch of 12,800 rows with the encoder alone, on validation and test.
- memory: LoRA and QLoRA at the size of BERT-base (random weights, 10 steps of 8 texts). Reports the size of the base
  model's weights and the peak memory of the process. On a CPU the latter hardly shows the weights, since Python, torch
  and the data take more.
- time: seconds for the same 100 steps, hierarchical and flat alternately, three times each, on an idle machine.

One seed each. Needs `make quickstart` (data and model). Takes more than an hour on 2 cores. Finished runs are not
repeated. Writes results/hierarchy.json.
"""

import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertModel
from trl import ModelConfig

from benchmarks.runs import run_once
from utils.data.files import read_rows
from utils.hierarchy import LabelTree
from utils.json_files import read_json, write_json
from utils.metrics.hierarchy import hierarchy_statistics
from utils.metrics.intervals import evaluate_statistics, paired_difference
from utils.modeling import get_quantization_config, load_base_model

HIERARCHICAL = ["run_hierarchical.py", "recipes/quickstart/hierarchical.yaml"]
FLAT = ["run_classification.py", "recipes/quickstart/classification.yaml"]
FLAT_KEYS = {  # keys that differ between the two recipes, except the columns of the hierarchical one
    "label_column": "block", "train_file": "quickstart/data/icd10cm_blocks.jsonl", "group_column": "category",
    "near_duplicate_threshold": 1.0, "min_input_words": 1, "drop_ambiguous": "false", "max_length": 48,
    "max_eval_samples": 3000, "max_predict_samples": 3000,
}  # fmt: skip
LORA = {"use_peft": "true", "lora_r": 16, "lora_alpha": 32, "lora_target_modules": ["query", "key", "value", "dense"]}
QLORA = LORA | {"load_in_4bit": "true", "dtype": "bfloat16"}
SYSTEMS = {"hierarchical": (HIERARCHICAL, {}), "flat": (FLAT, FLAT_KEYS), "focal": (HIERARCHICAL, {"focal_gamma": 2})}
SMALL = {"max_train_samples": 12800, "num_train_epochs": 1, "ensemble": "none"}
ABLATION = {
    "cross-entropy": SMALL,
    "focal": SMALL | {"focal_gamma": 2},
    "focal, inverse frequency": SMALL | {"focal_gamma": 2, "class_imbalance": "inverse_frequency"},
    "LoRA": SMALL | LORA | {"learning_rate": 1e-3},
    "QLoRA": SMALL | QLORA | {"learning_rate": 1e-3},
}
FEW = {"max_eval_samples": 400, "max_predict_samples": 400, "ensemble": "none"}
SHOWN = ("parent_macro_f1", "child_macro_f1", "path_accuracy", "hierarchical_f1", "parent_ece", "child_ece")
OUTPUTS = Path("outputs/hierarchy")


def run(script_and_recipe: list[str], keys: dict[str, Any], name: str) -> dict[str, Any]:
    return run_once(script_and_recipe, OUTPUTS / name, keys)


def read_paths(name: str, tree: LabelTree) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return ids of the test rows, predicted nodes [rows, depth] and true leaves [rows]."""
    place = {leaf: i for i, leaf in enumerate(tree.leaves)}
    rows = [row for _, row in read_rows(OUTPUTS / name / "_private" / "predictions_test.jsonl")]

    def leaf(label: str | list[str]) -> int:
        return place[label[-1] if isinstance(label, list) else label]

    predicted = tree.ancestors[[leaf(row["prediction"]) for row in rows]]
    return [row["id"] for row in rows], predicted, np.array([leaf(row["reference"]) for row in rows])


def compare_systems() -> list[dict[str, Any]]:
    found = {name: run(script, keys, name) for name, (script, keys) in SYSTEMS.items()}
    tree = LabelTree.from_dict(read_json(OUTPUTS / "hierarchical" / "task.json")["tree"])
    ids, predicted, labels = read_paths("hierarchical", tree)
    clusters = [code[:3] for code in ids]  # whole categories, as in the split
    first, rows = hierarchy_statistics(predicted, labels, tree), []
    for name, results in found.items():
        same_ids, predicted, _ = read_paths(name, tree)
        if same_ids != ids:
            raise SystemExit(f"error: {name} was tested on other rows than hierarchical: delete {OUTPUTS} and rerun")
        own = hierarchy_statistics(predicted, labels, tree)
        shown = {key: own[key] for key in SHOWN if key in own}
        row = {"system": name} | evaluate_statistics(shown, clusters, "test")
        row |= {key: results[key] for key in ("test_parent_ece", "test_child_ece", "test_ece") if key in results}
        if name != "hierarchical":
            row |= paired_difference(shown, first, clusters, "delta_hierarchical_test")
        rows.append(row)
    return rows


def compare_small() -> list[dict[str, Any]]:
    rows = []
    for name, keys in ABLATION.items():
        results = run(HIERARCHICAL, keys, f"small-{name.replace(',', '').replace(' ', '-').lower()}")
        row = {"what": name}
        for split in ("eval", "test"):
            row |= {f"{split}_{metric}": results[f"{split}_{metric}"] for metric in SHOWN}
            row |= {f"{split}_child_macro_f1_ci95": results[f"{split}_child_macro_f1_ci95"]}
        rows.append(row | {"trainable_parameters": results["trainable_parameters"]})
    return rows


def measure_memory() -> list[dict[str, Any]]:
    folder = OUTPUTS / "bert-base"
    if not (folder / "config.json").exists():
        BertModel(BertConfig()).save_pretrained(folder)
        AutoTokenizer.from_pretrained("quickstart/models/all-minilm-l6-v2").save_pretrained(folder)
    short = FEW | {"max_steps": 10, "per_device_train_batch_size": 8, "max_train_samples": 2000}
    short["model_name_or_path"] = folder
    rows = []
    for name, keys in {
        "LoRA": LORA,
        "LoRA in bfloat16": LORA | {"dtype": "bfloat16"},
        "QLoRA": QLORA,
    }.items():
        results = run(HIERARCHICAL, short | keys, f"memory-{name.replace(' ', '-').lower()}")
        kept = ("train_peak_memory_gb", "trainable_parameters", "total_parameters")
        args = ModelConfig(model_name_or_path=str(folder), dtype=keys.get("dtype", "float32"), use_peft=True)
        args.load_in_4bit = "load_in_4bit" in keys
        device, labels = torch.device("cpu"), [str(i) for i in range(307)]
        quantization = get_quantization_config(args, device, skip_modules=["classifier"])
        load = (args, AutoModelForSequenceClassification, quantization, device, False, labels, ["classifier"])
        weights = {"weights_gb": load_base_model(*load).get_memory_footprint() / 1e9}
        rows.append({"what": name} | weights | {key: results[key] for key in kept})
    return rows


def measure_time(steps: int = 100, times: int = 3) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {"hierarchical": [], "flat": []}
    for i in range(times):
        for name in seconds:
            script, keys = SYSTEMS[name]
            seconds[name].append(run(script, keys | FEW | {"max_steps": steps}, f"time-{name}-{i}")["train_runtime"])
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {"steps": steps, "seconds": seconds, "ratio_of_medians": medians["hierarchical"] / medians["flat"]}


def main() -> None:
    results = {
        "time": measure_time(),
        "systems": compare_systems(),
        "losses_and_adapters": compare_small(),
        "memory": measure_memory(),
        "versions": read_json(OUTPUTS / "hierarchical" / "task.json")["versions"],
        "command": "python -m benchmarks.hierarchy",
    }
    write_json(Path("benchmarks/results/hierarchy.json"), results)


if __name__ == "__main__":
    main()
