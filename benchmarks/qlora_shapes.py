"""Peak memory and tokens/s of the QLoRA recipes, with random weights in the real shapes of their models.

    python -m benchmarks.qlora_shapes                  on a GPU: all layers
    python -m benchmarks.qlora_shapes --num_layers 2   on a CPU

Speed and memory depend on shapes, not on values, so no download is needed: models are created from their configs, and
rows are definitions of the quickstart, joined to 1,024 tokens. Writes benchmarks/results/qlora_shapes.json.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, Phi3Config, PhiConfig, PreTrainedTokenizerFast

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "qlora_shapes.json"
# Published configs: microsoft/Phi-3-mini-4k-instruct (transformers' default) and microsoft/phi-2
CONFIGS = {
    "phi3_qlora": Phi3Config(pad_token_id=0, eos_token_id=0, bos_token_id=0),
    "phi2_qlora": PhiConfig(
        vocab_size=51200,
        hidden_size=2560,
        intermediate_size=10240,
        num_hidden_layers=32,
        num_attention_heads=32,
        partial_rotary_factor=0.4,
    ),
}
PHI3_TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)


def make_model(name: str, num_layers: int | None, definitions: Path, folder: Path) -> None:
    """Save a model of the real shape with random weights, and a tokenizer trained on the definitions."""
    config = CONFIGS[name]
    config.num_hidden_layers = num_layers or config.num_hidden_layers
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    bpe = ByteLevelBPETokenizer()
    bpe.train(
        str(definitions), vocab_size=16_000, special_tokens=["<|endoftext|>", "<|end|>", "<|user|>", "<|assistant|>"]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )
    if name == "phi3_qlora":
        tokenizer.chat_template = PHI3_TEMPLATE
    tokenizer.save_pretrained(folder)


def make_rows(name: str, definitions: Path, folder: Path, n_rows: int) -> None:
    """Write rows of about 1,024 tokens: a long answer for Phi-3, a long question with short options for Phi-2."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    texts = [json.loads(line)["answer"] for line in definitions.read_text(encoding="utf-8").splitlines()]

    def text(start: int, n_tokens: int) -> str:
        return tokenizer.decode(tokenizer(" ".join(texts[start : start + 100]))["input_ids"][:n_tokens])

    rows = []
    for i in range(n_rows):
        if name == "phi3_qlora":
            rows.append({"question": f"What is {text(100 * i, 10)}?", "answer": text(100 * i, 1100)})
        else:
            options = {column: text(100 * i + k, 20) for k, column in enumerate(("opa", "opb", "opc", "opd"))}
            rows.append({"question": text(100 * i, 850), **options, "cop": i % 4})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_layers", type=int, help="Number of layers of each model; default: all.")
    parser.add_argument("--max_steps", type=int, default=10, help="Number of steps per run.")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    definitions = ROOT / "quickstart" / "data" / "hpo_definitions.jsonl"
    if not definitions.exists():
        sys.exit("error: quickstart/ does not exist: run `python -m utils.quickstart` first.")
    table = []
    for name in CONFIGS:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            make_model(name, args.num_layers, definitions, folder / "model")
            make_rows(name, definitions, folder, 160)
            flags = {
                "model_name_or_path": folder / "model",
                "train_file": folder / "rows.jsonl",
                "output_dir": folder / "run",
                "max_steps": args.max_steps,
                "max_length": 1024,
                "eval_strategy": "no",
                "save_strategy": "no",
                "load_best_model_at_end": False,
                "warmup_steps": 2,
                "max_eval_samples": 2,
                "max_predict_samples": 2,
                "max_new_tokens": 4,
                "near_duplicate_threshold": 1,
            }
            if not torch.cuda.is_available():
                flags |= {"use_cpu": True, "optim": "adamw_torch"}
            command = [sys.executable, "run_qa_sft.py", f"recipes/{name}.yaml"]
            command += [part for key, value in flags.items() for part in (f"--{key}", str(value))]
            subprocess.run(command, cwd=ROOT, check=True)
            results = json.loads((folder / "run" / "all_results.json").read_text())
            task = json.loads((folder / "run" / "task.json").read_text())
        kept = (
            "train_tokens_per_second",
            "peak_memory_gb",
            "peak_gpu_memory_gb",
            "trainable_parameters",
            "total_parameters",
        )
        table.append(
            {"recipe": name, "layers": CONFIGS[name].num_hidden_layers, "device": task["device"]}
            | {key: results[key] for key in kept if key in results}
            | {"versions": task["versions"]}
        )
        print(json.dumps(table[-1]))
    args.output.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
