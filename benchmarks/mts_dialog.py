"""Fine-tune the small encoder-decoder of the quickstart on real dialogues (MTS-Dialog).

    python -m benchmarks.mts_dialog [--data ../shared/data/mts_dialog] [--model outputs/quickstart-summarization]

`run_summarization.py` generates a section of the note from its header and the dialogue. It is trained on the training
set (5 % for validation) and tested on the 100 dialogues of the validation set. The model is that of the quickstart
after its training on definitions and names, with the weights of MiniLM. MTS-Dialog: github.com/abachaa/MTS-Dialog, CC
BY 4.0; `train.csv` and `validation.csv` with `section_header`, `dialogue`, `section_text`. ROUGE without stemming.
Manual reading: the outputs have the form of a note, but longer ones have wrong ages, dates and sexes; 24 million
weights and 1,100 dialogues are too few for facts. Takes 12 minutes on 2 cores. Writes results/mts_dialog.json, numbers
only.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from utils.json_files import read_json, write_json

OUTPUT_DIR = Path("outputs/mts-dialog")
KEYS = {
    "attn_implementation": "eager", "use_peft": "false", "text_column": "dialogue", "summary_column": "section_text",
    "keep_columns": "section_header", "text_template": "{section_header}: {text}", "validation_fraction": 0.05,
    "min_input_words": 1, "max_source_length": 256, "max_target_length": 128, "use_cpu": "true", "bf16": "true",
    "num_train_epochs": 10, "per_device_train_batch_size": 16, "train_sampling_strategy": "group_by_length",
    "learning_rate": 5e-4, "lr_scheduler_type": "cosine", "warmup_steps": 0.06, "logging_steps": 25,
    "save_strategy": "no", "eval_strategy": "no", "report_to": "none", "per_device_eval_batch_size": 32,
    "max_new_tokens": 128, "no_repeat_ngram_size": 3,
}  # fmt: skip
SHOWN = ("rouge1", "rouge2", "rougeL", "bleu", "omission", "hallucination", "finished", "loss")
SYSTEMS = ("", "base_", "baseline_lead_", "baseline_copy_", "baseline_nearest_source_")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/mts_dialog"))
    parser.add_argument("--model", default="outputs/quickstart-summarization")
    args = parser.parse_args()
    files = {"train_file": args.data / "train.csv", "test_file": args.data / "validation.csv"}
    keys = KEYS | files | {"model_name_or_path": args.model, "output_dir": OUTPUT_DIR}
    command = [sys.executable, "run_summarization.py"]
    command += [word for key, value in keys.items() for word in (f"--{key}", str(value))]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    results = read_json(OUTPUT_DIR / "all_results.json")
    names = [f"{system}test_{name}" for system in SYSTEMS for name in SHOWN]
    names += [f"delta_{system}test_{name}" for system in SYSTEMS[1:] for name in SHOWN[:3]]
    kept = {name: results[name] for name in names if name in results}
    kept |= {f"{name}_ci95": results[f"{name}_ci95"] for name in kept}
    kept |= {key: results[key] for key in ("train_rows", "validation_rows", "test_rows", "train_runtime")}
    keys = {key: value for key, value in keys.items() if key not in (*files, "output_dir")}
    versions = read_json(OUTPUT_DIR / "task.json")["versions"]
    command = "python -m benchmarks.mts_dialog"
    write_json(
        Path("benchmarks/results/mts_dialog.json"), {"command": command, "keys": keys, "versions": versions} | kept
    )
    print({name: round(kept[name], 3) for name in names if name in kept and "rouge1" in name})


if __name__ == "__main__":
    main()
