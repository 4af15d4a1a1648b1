"""Compare the values of `class_imbalance` on the quickstart recipe.

    python -m benchmarks.class_imbalance

Three epochs and one seed per value. The choice uses macro F1 on validation and the one-standard-error rule (Breiman et
al. 1984): the first value in the order of `CLASS_IMBALANCE`, `none` first, within one standard error of the
best, since smaller differences are noise. Test numbers are reported beside it.
Needs `make quickstart` (data and model). Writes results/class_imbalance.json.
"""

from pathlib import Path

from benchmarks.runs import run_once
from utils.json_files import read_json, write_json
from utils.losses import CLASS_IMBALANCE

RECIPE, EPOCHS = "recipes/quickstart/classification.yaml", 3
SHOWN = ("accuracy", "macro_f1", "many_shot_macro_f1", "medium_shot_macro_f1", "few_shot_macro_f1", "ece", "loss")


def main() -> None:
    rows = []
    for how in CLASS_IMBALANCE:
        output_dir = Path("outputs/class-imbalance") / how
        keys = {"class_imbalance": how, "num_train_epochs": EPOCHS}
        results = run_once(["run_classification.py", RECIPE], output_dir, keys)
        row = {"class_imbalance": how, "train_runtime": results["train_runtime"]}
        for split in ("eval", "test"):
            row |= {f"{split}_{name}": results.get(f"{split}_{name}") for name in SHOWN}
            row[f"{split}_macro_f1_ci95"] = results[f"{split}_macro_f1_ci95"]
        rows.append(row)
        shown = ("eval_macro_f1", "eval_accuracy", "test_macro_f1")
        print(how, {key: round(row[key], 3) for key in shown}, flush=True)
    best = max(rows, key=lambda row: row["eval_macro_f1"])
    low, high = best["eval_macro_f1_ci95"]
    enough = best["eval_macro_f1"] - (high - low) / 3.92  # a 95 % interval is 3.92 standard errors wide
    chosen = next(row["class_imbalance"] for row in rows if row["eval_macro_f1"] >= enough)
    write_json(
        Path("benchmarks/results/class_imbalance.json"),
        {
            "recipe": RECIPE,
            "epochs": EPOCHS,
            "best_on_validation": best["class_imbalance"],
            "chosen": chosen,
            "rows": rows,
            "versions": read_json(output_dir / "task.json")["versions"],
            "command": "python -m benchmarks.class_imbalance",
        },
    )
    print("best on validation:", best["class_imbalance"], "chosen:", chosen)


if __name__ == "__main__":
    main()
