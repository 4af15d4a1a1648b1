"""From a row to the tokens that the model sees: the same code in training, evaluation and serving."""

from collections.abc import Callable, Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from utils.arguments import UserError

MARKER = "\N{BLACK SQUARE}"  # stands for the answer while a chat template is taken apart
TARGETS = ("answer", "answer_index", "label", "summary")  # roles that are to be found out


def format_options(options: Sequence[str]) -> str:
    """Write options as lines `A. ...`, `B. ...`, as lm-evaluation-harness does for multiple choice."""
    return "\n".join(option_answers(options))


def option_answers(options: Sequence[str]) -> list[str]:
    """Return the answer that stands for each option: its letter and its text."""
    return [f"{letter}. {option}" for letter, option in zip(ascii_uppercase, options, strict=False)]


def fill_template(
    template: str, columns: Mapping[str, str | None], row: Mapping[str, Any], key: str = "prompt_template"
) -> str:
    """Put a row into a prompt or a text.

    Args:
        template: text with names in braces: the roles of `columns`, or further columns of the row.
        columns: the row's column of each role, e.g. `{"question": "input", "context": None}`.
        row: one row; an absent context is left out.
        key: what the recipe calls the template, for the errors.

    Raises:
        UserError: a name in braces is neither a role nor a column, or a brace is left open.
    """
    hidden = {columns.get(role) for role in TARGETS}  # a prompt must not give the answer away
    fields = {name: v for name, v in row.items() if isinstance(v, str | int | float) and name not in hidden}
    for role in columns.keys() - set(TARGETS):
        value = row.get(columns[role]) if columns[role] else None
        fields[role] = format_options(value) if isinstance(value, list | tuple) else value or ""
    try:
        return template.format_map(fields).strip()
    except KeyError as error:
        raise UserError(
            f"`{key}` names {{{error.args[0]}}}, which is no column: use {', '.join(sorted(fields))}, "
            "and name further columns in `keep_columns`."
        ) from error
    except (ValueError, IndexError) as error:
        raise UserError(f"`{key}` is not a template ({error}): write a brace that is text twice.") from error


def check_adapted(
    write: Callable[[Mapping[str, Any]], str], task: Mapping[str, Any], rows: Dataset, key: str = "prompt_template"
) -> None:
    """Hold a script's function under ADAPT HERE to what `task.json` keeps of it, on the first 100 rows.

    Args:
        write: the function: a row -> the text that the model sees.
        task: with `columns` and the template under `key`.
        rows: of training.
        key: what the recipe calls the template.

    Raises:
        UserError: the function writes another text than the template, which is all that `predict.py` knows.
    """
    for row in rows.select(range(min(100, len(rows)))):
        if write(row) != fill_template(task[key], task["columns"], row, key):
            raise UserError(
                f"the function under ADAPT HERE writes another text than `{key}`, which is all that predict.py knows: "
                f"put the change into `{key}`, and name further columns in `keep_columns`."
            )


def chat_prompt(tokenizer: PreTrainedTokenizerBase, system_prompt: str | None, user: str) -> str:
    """Render the turns before the answer with the tokenizer's chat template, up to where the answer begins."""
    messages = [{"role": "system", "content": system_prompt}] if system_prompt else []
    messages.append({"role": "user", "content": user})
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def render_prompt(tokenizer: PreTrainedTokenizerBase, task: Mapping[str, Any], user: str) -> str:
    """Return the prompt of a user's turn: in the chat template, or as it is for a model without one."""
    return chat_prompt(tokenizer, task["system_prompt"], user) if task["chat"] else user


def build_prompt(tokenizer: PreTrainedTokenizerBase, task: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Return the whole prompt of a row, from what `task.json` says. Training uses this function too."""
    return render_prompt(tokenizer, task, fill_template(task["prompt_template"], task["columns"], row))


def answer_delimiters(tokenizer: PreTrainedTokenizerBase, chat: bool) -> tuple[str, str]:
    """Return what stands between the prompt and an answer, and the token that ends an answer.

    For a chat template the frame is read off the template itself, since end-of-turn tokens differ: Phi-3 ends a turn
    with `<|end|>`, not with its end-of-text token. A plain prompt is followed by a space and ended by the tokenizer's
    end-of-text token.
    """
    if not chat:
        return " ", tokenizer.eos_token
    prompt = chat_prompt(tokenizer, None, "question")
    messages = [{"role": "user", "content": "question"}, {"role": "assistant", "content": MARKER}]
    full = tokenizer.apply_chat_template(messages, tokenize=False)
    if not full.startswith(prompt) or MARKER not in full:
        return "", tokenizer.eos_token
    before, after = full[len(prompt) :].split(MARKER, 1)
    special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    ends = [token for token in tokenizer.tokenize(after) if token in special]
    return before, ends[0] if ends else tokenizer.eos_token


def tokenize_pairs(
    tokenizer: PreTrainedTokenizerBase, prompts: list[str], answers: list[str] | None, chat: bool
) -> tuple[list[list[int]], list[list[int]]]:
    """Tokenize prompts and answers; an answer's last token is the one that ends it.

    Prompt and answer are tokenized together where that leaves the prompt's tokens as they are, which is how the model
    met such text before, and apart where tokens would merge across the border: so the model is trained on the very
    prompt tokens that it is given later.

    Args:
        tokenizer: of the base model.
        prompts: whole prompts.
        answers: as many answers, or None for the prompts alone.
        chat: whether the prompts come from a chat template, which writes its own first token.

    Returns:
        token ids of the prompts and of the answers; the latter is empty without answers.
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
) -> tuple[list[list[int]], list[list[int]] | None, dict[str, int]]:
    """Cut rows to `max_length` tokens: a prompt that leaves no room for an answer to its last tokens, where the
    question stands, then the answer's end.

    Returns:
        prompts, answers, and how many of each were cut: `cut_prompts`, `cut_answers`.
    """
    short = [prompt[-(max_length - 1) :] for prompt in prompts]
    counts = {"cut_prompts": sum(len(prompt) >= max_length for prompt in prompts), "cut_answers": 0}
    if answers is None:
        return short, None, counts
    cut = [answer[: max_length - len(prompt)] for prompt, answer in zip(short, answers, strict=True)]
    counts["cut_answers"] = sum(len(a) < len(b) for a, b in zip(cut, answers, strict=True))
    return short, cut, counts
