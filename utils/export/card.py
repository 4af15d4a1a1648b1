"""The card of an export: that of its run, with how the export was made and proven."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.export.verify import MAX_LOGIT_DIFFERENCE, export_table
from utils.json_files import write_text
from utils.reporting.card import write_card

USES = {
    "merged": "Its weights are those of the base model with the adapter merged in: plain `transformers` and vLLM load "
    "it as any other model.",
    "onnx": "It runs in `onnxruntime`, without PyTorch's kernels.",
    "gguf": "It runs in llama.cpp and Ollama: `ollama create NAME -f Modelfile`.",
}


def write_export_card(folder: Path, name: str, export: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """Write `README.md` of an export.

    Args:
        folder: of the export, with `task.json`, `all_results.json` and `recipe.yaml`.
        name: of the model in the example commands.
        export: `format` and the other facts of how it was made.
        results: from `compare`.
    """
    path = write_card(folder, name)
    card = path.read_text(encoding="utf-8")
    made = ", ".join(f"{key}: {value}" for key, value in export.items() if key != "format" and value is not None)
    proof = (
        f"Every answer is equal, and no logit differs by more than {MAX_LOGIT_DIFFERENCE:g} in float32."
        if export["exact"]
        else f"No metric is worse by more than {export['max_loss']:g}, as far as the interval of its difference tells."
        " Scores elsewhere on this card and in its metadata are the trained model's; here are the export's, too."
    )
    section = (
        f"## Export\n\nThis is an export of a trained model as `{export['format']}` ({made}). "
        f"{USES[export['format']]} Before it was written, it answered {results['rows']} test rows, and so did the "
        f"trained model in float32. {proof}\n\n{export_table(results)}\n\n"
    )
    at = card.index("\n## ") + 1  # before the first section of the run
    write_text(path, card[:at] + section + card[at:])
