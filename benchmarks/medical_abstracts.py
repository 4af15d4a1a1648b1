"""Hierarchical classification of medical abstracts into five classes under two parents, with grouped cross-validation.

    python -m benchmarks.medical_abstracts --data medical_abstracts.jsonl

The tree is "general pathological conditions", alone under itself, and "specific disease" with the other four classes.
`run_hierarchical.py` trains on each fold and is tested on abstracts without near-duplicates in training, since the
corpus has the same text under several labels. The encoder is the MiniLM of `make quickstart-hierarchical`, fine-tuned
on ICD-10-CM, because 1,600 abstracts are few for an encoder without medical training. The baseline on the same folds
is a linear SVM on TF-IDF with all training rows of the fold, including the validation rows of the encoder. Intervals
and differences are over the test rows of all folds.

The file is Medical-Abstracts-TC-Corpus (CC BY-SA 3.0) with the columns `text` and `label`. Finished folds are not
repeated. Writes results/medical_abstracts.json.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.svm import LinearSVC
from transformers import AutoModel, AutoTokenizer

from benchmarks.runs import run_once
from utils.data.files import read_rows
from utils.data.near_duplicates import near_duplicate_clusters
from utils.hierarchy import LabelTree
from utils.json_files import read_json, write_json
from utils.metrics.baselines import class_features, tfidf
from utils.metrics.hierarchy import hierarchy_statistics
from utils.metrics.intervals import evaluate_statistics, mcnemar, paired_difference
from utils.quickstart.ontologies import write_rows

GENERAL, FOLDS, SEED = "general pathological conditions", 5, 42
OUTPUTS = Path("outputs/medical-abstracts")
KEYS = {
    "model_name_or_path": str(OUTPUTS / "encoder"), "attn_implementation": "eager", "use_peft": "false",
    "pooling": "mean", "dropout": 0.0, "parent_column": "parent", "child_column": "label", "group_column": "group",
    "max_length": 192, "long_texts": "head", "use_cpu": "true", "bf16": "true", "num_train_epochs": 4,
    "per_device_train_batch_size": 16, "train_sampling_strategy": "group_by_length", "learning_rate": 2e-4,
    "head_learning_rate": 2e-3, "lr_scheduler_type": "cosine", "warmup_steps": 0.06, "ensemble": "linear",
    "drop_ambiguous": "false", "save_strategy": "no", "report_to": "none",
}  # fmt: skip


def read_abstracts(path: str) -> list[dict[str, str]]:
    """Read rows with `id`, `text`, `label`, `parent` and `group` (near-duplicates, kept in one fold)."""
    rows = [row for _, row in read_rows(path)]
    clusters = near_duplicate_clusters([row["text"] for row in rows], 0.8, SEED)
    return [
        {"id": str(i), "text": row["text"], "label": row["label"], "group": str(cluster)}
        | {"parent": row["label"] if row["label"] == GENERAL else "specific disease"}
        for i, (row, cluster) in enumerate(zip(rows, clusters, strict=True))
    ]


def make_encoder(folder: Path) -> None:
    """Save the encoder of a run without its head, whose classes do not apply here."""
    AutoModel.from_pretrained(folder).save_pretrained(OUTPUTS / "encoder")
    AutoTokenizer.from_pretrained(folder).save_pretrained(OUTPUTS / "encoder")


def run_fold(fold: int, train: list[dict[str, str]], test: list[dict[str, str]]) -> dict[str, Any]:
    """Train and test on a fold unless it has already finished, and return the results."""
    folder = OUTPUTS / str(fold)
    if not (folder / "run" / "all_results.json").exists():
        write_rows(folder / "train.jsonl", train)
        write_rows(folder / "test.jsonl", test)
    files = {f"{split}_file": folder / f"{split}.jsonl" for split in ("train", "test")}
    return run_once(["run_hierarchical.py"], folder / "run", KEYS | files)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="../shared/data/medical_abstracts/medical_abstracts.jsonl")
    parser.add_argument("--encoder", default="outputs/quickstart-hierarchical", type=Path)
    args = parser.parse_args()
    if not (OUTPUTS / "encoder").exists():
        make_encoder(args.encoder)
    rows = read_abstracts(args.data)
    tree = LabelTree.from_paths([(row["parent"], row["label"]) for row in rows])
    place = {leaf: i for i, leaf in enumerate(tree.leaves)}
    labels, texts = np.array([place[row["label"]] for row in rows]), [row["text"] for row in rows]
    clusters = [row["group"] for row in rows]

    tuned, svm, folds = np.full(len(rows), -1), np.full(len(rows), -1), []
    cut = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=SEED).split(texts, labels, clusters)
    for fold, (train, test) in enumerate(cut):
        found = run_fold(fold, [rows[i] for i in train], [rows[i] for i in test])
        system_names = ("test", "baseline_encoder_alone_test", "baseline_tfidf_svm_test")
        folds.append({f"{name}_child_macro_f1": found[f"{name}_child_macro_f1"] for name in system_names})
        folds[-1] |= {key: found[key] for key in ("train_rows", "test_rows", "train_runtime")}
        print(fold, folds[-1], flush=True)
        for _, row in read_rows(OUTPUTS / str(fold) / "run" / "_private" / "predictions_test.jsonl"):
            tuned[int(row["id"])] = place[row["prediction"][-1]]
        model, features = LinearSVC(class_weight="balanced", random_state=SEED), class_features(len(set(labels)))
        known, new = tfidf([texts[i] for i in train], [texts[i] for i in test], features)
        svm[test] = model.fit(known, labels[train]).predict(new)

    kept = tuned >= 0  # the script drops duplicate rows of a test set
    kept_clusters = np.array(clusters)[kept]
    found = {
        name: hierarchy_statistics(tree.ancestors[guesses[kept]], labels[kept], tree)
        for name, guesses in {"fine_tuned": tuned, "svm": svm}.items()
    }
    results: dict[str, Any] = {"rows": int(kept.sum()), "clusters": len(set(clusters)), "folds": folds}
    for name, statistics in found.items():
        results |= evaluate_statistics(statistics, kept_clusters, name)
    results |= paired_difference(found["fine_tuned"], found["svm"], kept_clusters, "delta_svm")
    results["mcnemar_svm_p"] = mcnemar((tuned == labels)[kept], (svm == labels)[kept], kept_clusters)
    results["versions"] = read_json(OUTPUTS / "0" / "run" / "task.json")["versions"]
    results |= {"keys": KEYS, "command": "python -m benchmarks.medical_abstracts --data medical_abstracts.jsonl"}
    write_json(Path("benchmarks/results/medical_abstracts.json"), results)
    shown = ("fine_tuned_child_macro_f1", "svm_child_macro_f1", "delta_svm_child_macro_f1", "mcnemar_svm_p")
    print({key: results[key] for name in shown for key in (name, f"{name}_ci95") if key in results})


if __name__ == "__main__":
    main()
