"""Export a trained model, and prove that the export answers like it.

    python export.py --model outputs/phi3-qlora --output_dir exports/phi3
    python export.py --model outputs/phi3-qlora --dtype bfloat16 --output_dir exports/phi3-bf16
    python export.py --model outputs/quickstart-classification --format onnx --output_dir exports/organ-systems

Both the trained model, in float32, and the export in its own runtime answer the test rows that the run stored. A
merged export in float32 has to repeat every answer and, up to 0.001, every logit. Another export may not have a metric
that is worse by more than `max_loss`. An export that fails is deleted, and the exit code is 2.

`predict.py --model EXPORT` and `app.py --model EXPORT` use an export like a run. docs/export.md has the details.

Not a medical device: answers may be wrong. For research and teaching.
"""

import contextlib
import errno
import gc
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import utils  # noqa: F401  # before torch and bitsandbytes, whose threads and messages it settles

# isort: split
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from utils.arguments import UserError, parse_recipe, user_errors
from utils.evaluation.outputs import make_readable
from utils.export.answers import answer_prompts, answer_rows, measure
from utils.export.card import write_export_card
from utils.export.formats import DTYPES, QUANTIZATION, check_format, is_exact
from utils.export.gguf import first_token, rendered_prompts, write_gguf
from utils.export.merge import merge, write_generation
from utils.export.onnx import write_onnx
from utils.export.run import check_room, count_weights, in_float32, read_run, stored_rows
from utils.export.verify import check, compare, export_table
from utils.json_files import read_json, write_json
from utils.loading import load_run_tokenizer, load_trained
from utils.runtimes.llama_cpp import FILE as GGUF
from utils.runtimes.llama_cpp import LlamaCpp
from utils.task import load_task

logger = logging.getLogger(__name__)
NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
COPIED = ("recipe.yaml", "all_results.json", "linear.safetensors")  # what serving and the card read


@dataclass
class ExportArguments:
    """The model and its export."""

    model: str = field(metadata={"help": "The `output_dir` of a finished run."})
    output_dir: str = field(metadata={"help": "Folder for the export, which must not exist."})
    format: str = field(
        default="merged",
        metadata={
            "help": "merged: safetensors for transformers and vLLM. onnx: classifiers for ONNX Runtime. gguf: "
            "answers for llama.cpp and Ollama.",
            "choices": tuple(QUANTIZATION),
        },
    )
    quantization: str | None = field(
        default=None,
        metadata={"help": "onnx: int8 (default), none. gguf: f16 (default), q8_0, bf16, f32."},
    )
    dtype: str = field(
        default="float32",
        metadata={"help": "Of merged weights. In half precision some answers change.", "choices": tuple(DTYPES)},
    )
    max_loss: float = field(
        default=0.01, metadata={"help": "How much worse a metric of an export that is rounded may be."}
    )
    max_predict_samples: int | None = field(
        default=None,
        metadata={"help": "Test rows to verify the export on. Default: all; 200 where the model writes texts."},
    )
    batch_size: int = field(default=8, metadata={"help": "Rows per batch while verifying."})
    base_model: str | None = field(
        default=None, metadata={"help": "Where the base model is now, if it has moved since training."}
    )
    trust_remote_code: bool = field(default=False, metadata={"help": "Run code that comes with the base model."})

    def __post_init__(self) -> None:
        for key in ("batch_size", "max_predict_samples"):
            if (value := getattr(self, key)) is not None and value < 1:
                raise UserError(f"`{key}` is {value}: give 1 or more.")
        if not 0 <= self.max_loss <= 1:
            raise UserError(f"`max_loss` is {self.max_loss}: give 0 to 1.")


@contextlib.contextmanager
def new_folder(output_dir: Path) -> Iterator[Path]:
    """Yield a folder beside `output_dir` that takes its name at the end, and is deleted if anything fails.

    Raises:
        UserError: the disk is full or not writable.
    """
    work = output_dir.with_name(f".{output_dir.name}.partial")
    try:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        yield work
        if output_dir.is_dir():  # an empty one
            output_dir.rmdir()
        work.rename(output_dir)
    except (OSError, SafetensorError) as error:
        if getattr(error, "errno", None) not in NOT_WRITABLE and "No space left" not in str(error):
            raise
        raise UserError(f"`output_dir` {output_dir} cannot be written ({error}): choose another disk.") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def check_output(output_dir: Path, run: Path) -> None:
    """Raise a UserError if the export would overwrite something."""
    if output_dir.resolve() == run.resolve():
        raise UserError(f"`output_dir` {output_dir} is the `model`: give a new folder.")
    if output_dir.exists() and not (output_dir.is_dir() and not any(output_dir.iterdir())):
        raise UserError(f"`output_dir` {output_dir} exists: give a new folder, or delete it.")


def write_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: dict[str, Any],
    args: ExportArguments,
    quantization: str,
    work: Path,
) -> dict[str, Any]:
    """Write the weights of an export, and return what its `task.json` says otherwise than that of the run."""
    check_room(Path(args.output_dir), 2 * count_weights(model) * DTYPES[args.dtype])
    merged = merge(model, getattr(torch, args.dtype))
    changes = {"dtype": args.dtype, "quantization": None}
    if args.format == "onnx":
        write_onnx(merged, tokenizer, task, work, quantization == "int8")
        # the temperature as it applies to these logits: a head that was divided by it has 1
        return changes | {"autocast": None, "temperature": task["temperature"], "beyond_weights": ["ONNX Runtime"]}
    write_generation(merged, tokenizer, task)
    target = work / "merged" if args.format == "gguf" else work
    merged.save_pretrained(target, max_shard_size="2GB")
    if args.format == "gguf":
        tokenizer.save_pretrained(target)
        write_gguf(target, work, tokenizer, task, quantization)
        shutil.rmtree(target)
    return changes


def main(args: ExportArguments) -> None:
    folder, task = read_run(args.model)
    output_dir = Path(args.output_dir)
    check_output(output_dir, folder)
    quantization = check_format(args.format, args.quantization, args.dtype, task)
    rows, train = stored_rows(folder, task, args.max_predict_samples)
    linear = load_file(folder / "linear.safetensors") if (folder / "linear.safetensors").exists() else None
    tokenizer = load_run_tokenizer(folder, task)
    model = in_float32(load_trained(folder, task, tokenizer, args.base_model, args.trust_remote_code))
    trained = answer_rows(model, tokenizer, rows, task, args.batch_size, linear)
    export: dict[str, Any] = {
        "format": args.format, "dtype": args.dtype, "quantization": quantization, "max_loss": args.max_loss,
        "exact": is_exact(args.format, quantization, args.dtype, task),
    }  # fmt: skip

    with new_folder(output_dir) as work:
        changes = write_model(model, tokenizer, task, args, quantization, work)
        del model
        gc.collect()
        tokenizer.save_pretrained(work)
        for name in COPIED:
            if (folder / name).exists():
                shutil.copy(folder / name, work)
        write_json(work / "task.json", read_json(folder / "task.json") | changes | {"export": export})
        make_readable(work)

        own = load_task(work)
        tokenizer = load_run_tokenizer(work, own)
        model = load_trained(work, own, tokenizer, trust_remote_code=args.trust_remote_code)
        if isinstance(model, LlamaCpp):
            text, first = (work / "Modelfile").read_text(encoding="utf-8"), first_token(work / GGUF, tokenizer)
            prompts = rendered_prompts(text, tokenizer, own, rows, first)
            answers = answer_prompts(model, tokenizer, prompts, rows, own)
        else:
            answers = answer_rows(model, tokenizer, rows, own, args.batch_size, linear)
        statistics = measure(trained, rows, train, task), measure(answers, rows, train, own)
        results = compare(trained, answers, statistics, rows["cluster"])
        check(results, export["exact"], args.max_loss, args.model)
        write_json(work / "export.json", export | results)
        write_export_card(work, output_dir.name, export, results)
    print(export_table(results), f"export: {output_dir}", sep="\n")


if __name__ == "__main__":
    with user_errors():
        main(*parse_recipe((ExportArguments,), description=__doc__)[:1])
