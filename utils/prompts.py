"""Turn rows into the tokens that the model reads, with one code path for training, evaluation and serving."""

from collections.abc import Callable, Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from utils.arguments import UserError

MARKER = "\N{BLACK SQUARE}"  # placeholder for the answer while a chat template is parsed
TARGETS = ("answer", "answer_index", "label", "summary")  # roles that the model has to predict


def format_options(options: Sequence[str]) -> str:
    """Format options as lines `A. ...`, `B. ...`, as lm-evaluation-harness does for multiple choice."""
    return "\n".join(option_answers(options))


def option_answers(options: Sequence[str]) -> list[str]:
    """Return the answer for each option: its letter and its text."""
    return [f"{letter}. {option}" for letter, option in zip(ascii_uppercase, options, strict=False)]


def fill_template(
    template: str, columns: Mapping[str, str | None], row: Mapping[str, Any], key: str = "prompt_template"
) -> str:
    """Fill a prompt or text template with a row.

    Args:
        template: text with names in braces: roles of `columns`, or other columns of the row.
        columns: the row's column for each role, e.g. `{"question": "input", "context": None}`.
        row: one row; a missing context becomes an empty string.
        key: the template's key in the recipe, for error messages.

    Raises:
        UserError: a name in braces is neither a role nor a column, or braces are unbalanced.
    """
    hidden = {columns.get(role) for role in TARGETS}  # a prompt must not reveal the answer
    fields = {name: v for name, v in row.items() if isinstance(v, str | int | float) and name not in hidden}
    for role in columns.keys() - set(TARGETS):
        column = columns[role]
        value = row.get(column) if column else None
        fields[role] = format_options(value) if isinstance(value, list | tuple) else value or ""
    try:
        return template.format_map(fields).strip()
    except KeyError as error:
        raise UserError(
            f"`{key}` names {{{error.args[0]}}}, which is not a column: use {', '.join(sorted(fields))}, or add "
            "the column to `keep_columns`."
        ) from error
    except (ValueError, IndexError) as error:
        raise UserError(f"`{key}` is not a valid template ({error}): double each literal brace.") from error


def check_adapted(
    write: Callable[[Mapping[str, Any]], str], task: Mapping[str, Any], rows: Dataset, key: str = "prompt_template"
) -> None:
    """Check on the first 100 rows that a script's function under ADAPT HERE writes what `task.json` stores.

    Args:
        write: the function, from a row to the text that the model reads.
        task: `columns`, and the template under `key`.
        rows: training rows.
        key: the template's key in the recipe.

    Raises:
        UserError: the output differs from the filled template, the only thing that `predict.py` knows.
    """
    for row in rows.select(range(min(100, len(rows)))):
        if write(row) != fill_template(task[key], task["columns"], row, key):
            raise UserError(
                f"the function under ADAPT HERE does not match `{key}`, the only template that predict.py knows: move "
                f"the change to `{key}`, and list the columns it needs in `keep_columns`."
            )


def chat_prompt(tokenizer: PreTrainedTokenizerBase, system_prompt: str | None, user: str) -> str:
    """Render the turns before the answer with the chat template, up to where the answer begins."""
    messages = [{"role": "system", "content": system_prompt}] if system_prompt else []
    messages.append({"role": "user", "content": user})
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def render_prompt(tokenizer: PreTrainedTokenizerBase, task: Mapping[str, Any], user: str) -> str:
    """Return the prompt for a user turn: in the chat template, or unchanged for a model without one."""
    return chat_prompt(tokenizer, task["system_prompt"], user) if task["chat"] else user


def build_prompt(tokenizer: PreTrainedTokenizerBase, task: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Return the full prompt of a row, as configured in `task.json`. Training uses it as well."""
    return render_prompt(tokenizer, task, fill_template(task["prompt_template"], task["columns"], row))


def answer_delimiters(tokenizer: PreTrainedTokenizerBase, chat: bool) -> tuple[str, str]:
    """Return the text between a prompt and its answer, and the token that ends an answer.

    For a chat model both are read off the template, since end-of-turn tokens differ: Phi-3 ends a turn with `<|end|>`,
    not with its end-of-sequence token. A plain prompt is followed by a space, and its answer by the end-of-sequence
    token.
    """
    if not chat:
        return " ", tokenizer.eos_token
    prompt = chat_prompt(tokenizer, None, "question")
    messages = [{"role": "user", "content": "question"}, {"role": "assistant", "content": MARKER}]
    full = str(tokenizer.apply_chat_template(messages, tokenize=False))
    if not full.startswith(prompt) or MARKER not in full:
        return "", tokenizer.eos_token
    before, after = full[len(prompt) :].split(MARKER, 1)
    special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    ends = [token for token in tokenizer.tokenize(after) if token in special]
    return before, ends[0] if ends else tokenizer.eos_token


def tokenize_pairs(
    tokenizer: PreTrainedTokenizerBase, prompts: list[str], answers: list[str] | None, chat: bool
) -> tuple[list[list[int]], list[list[int]]]:
    """Tokenize prompts and answers; each answer ends with its stop token.

    Prompt and answer are tokenized jointly, as in pretraining text, unless tokens would merge across the boundary;
    then they are tokenized separately. Either way the model trains on exactly the prompt tokens that it sees at
    inference.

    Args:
        tokenizer: the base model's tokenizer.
        prompts: full prompts.
        answers: one per prompt, or None to tokenize only the prompts.
        chat: whether the prompts come from a chat template, which adds its own first token.

    Returns:
        token ids of the prompts and of the answers (empty without answers).
    """
    prompt_ids = tokenizer(prompts, add_special_tokens=not chat)["input_ids"]
    if answers is None:
        return prompt_ids, []
    before, stop = answer_delimiters(tokenizer, chat)
    stop_id = tokenizer.convert_tokens_to_ids(stop)
    texts = [before + answer for answer in answers]
    joint_ids = tokenizer([p + t for p, t in zip(prompts, texts, strict=True)], add_special_tokens=not chat)[
        "input_ids"
    ]
    answer_ids = []
    for prompt, joint, text in zip(prompt_ids, joint_ids, texts, strict=True):
        together = joint[: len(prompt)] == prompt
        ids = joint[len(prompt) :] if together else tokenizer(text, add_special_tokens=False)["input_ids"]
        answer_ids.append([*ids, stop_id])
    return prompt_ids, answer_ids


def truncate_pairs(
    prompts: list[list[int]], answers: list[list[int]] | None, max_length: int
) -> tuple[list[list[int]], list[list[int]], dict[str, int]]:
    """Truncate rows to `max_length` tokens. A prompt that leaves no room for an answer keeps its last tokens, which
    hold the question; then the answer is cut at its end.

    Returns:
        prompts, answers (empty without answers), and the number of each that were cut: `cut_prompts`,
        `cut_answers`.
    """
    short = [prompt[-(max_length - 1) :] for prompt in prompts]
    counts = {"cut_prompts": sum(len(prompt) >= max_length for prompt in prompts), "cut_answers": 0}
    if answers is None:
        return short, [], counts
    cut = [answer[: max_length - len(prompt)] for prompt, answer in zip(short, answers, strict=True)]
    counts["cut_answers"] = sum(len(a) < len(b) for a, b in zip(cut, answers, strict=True))
    return short, cut, counts
