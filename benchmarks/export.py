"""What exports lose and gain: answers of a merged and of a GGUF model, speed and scores of an int8 classifier.

    make quickstart quickstart-classification install-export
    python -m benchmarks.export

Writes benchmarks/results/export.json: of each export the table that proved it, and texts per second of the classifier
in PyTorch and in ONNX Runtime, with the threads that PyTorch takes by default.
"""

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch

import export
from utils.encoding import encode_texts
from utils.export.run import read_run, stored_rows
from utils.inference import Predictor
from utils.json_files import read_json, write_json
from utils.logits import measure_latency, predict_logits

RESULTS = Path(__file__).parent / "results" / "export.json"


def write_export(model: str, folder: Path, **values: Any) -> dict[str, Any]:
    """Export a run, and return what was measured and the size of the folder in MB."""
    export.main(export.ExportArguments(model=model, output_dir=str(folder), **values))
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return read_json(folder / "export.json") | {"megabytes": size / 1e6}


def speed(model: str, texts: list[str]) -> dict[str, float]:
    """Return the latency and the texts per second of a classifier, in float32."""
    predictor = Predictor.from_pretrained(model)
    task, pad = predictor.task, predictor.tokenizer.pad_token_id
    ids, _ = encode_texts(predictor.tokenizer, texts, task["max_length"], task["long_texts"], task["max_chunks"])
    predict = partial(predict_logits, predictor.model, pad_token_id=pad, max_length=task["max_length"], batch_size=16)
    return measure_latency(predict, ids)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--qa", default="outputs/quickstart-qa", help="Run of run_qa_sft.py; none skips it.")
    parser.add_argument("--classifier", default="outputs/quickstart-classification", help="The same for classes.")
    parser.add_argument("--max_predict_samples", type=int, help="Fewer test rows, for a try.")
    args = parser.parse_args()
    rows = {"max_predict_samples": args.max_predict_samples}
    results = read_json(RESULTS) | {"threads": torch.get_num_threads()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.qa != "none":
            results["merged"] = write_export(args.qa, folder / "merged", **rows)
            asked = {"max_predict_samples": args.max_predict_samples or 100}
            for kind in ("f16", "q8_0"):
                results[f"gguf_{kind}"] = write_export(
                    args.qa, folder / kind, format="gguf", quantization=kind, **asked
                )
        if args.classifier != "none":
            for kind in ("none", "int8"):
                results[f"onnx_{kind}"] = write_export(
                    args.classifier, folder / f"onnx-{kind}", format="onnx", quantization=kind, **rows
                )
            run, task = read_run(args.classifier)
            texts = stored_rows(run, task, args.max_predict_samples)[0]["text"]
            models = {"pytorch": args.classifier, **{f"onnx_{k}": str(folder / f"onnx-{k}") for k in ("none", "int8")}}
            for system, model in models.items():
                results[f"{system}_speed"] = speed(model, texts)
    write_json(RESULTS, results)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
