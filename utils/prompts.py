"""Turn rows into the turns and tokens that a causal language model reads, with one code path for training, evaluation
and serving."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from utils.arguments import UserError
from utils.chat import WITHOUT, Turn, answer_delimiters, chat_prompt, generation_prompt, tokenize_pairs, turns_as_text
from utils.control_tokens import BREAK, THOUGHT, as_text, keep_control_tokens, token_ids
from utils.templates import fill_template

logger = logging.getLogger(__name__)


def prompt_settings(
    tokenizer: PreTrainedTokenizerBase, system_prompt: str | None, prompt_template: str | None, roles: Sequence[str]
) -> dict[str, Any]:
    """Return what `task.json` says about prompts: `chat`, `system_prompt`, `prompt_template` and `stop`.

    Args:
        tokenizer: the base model's tokenizer.
        system_prompt, prompt_template: of the recipe.
        roles: what a row has of context, question and options, which the default template joins.

    Raises:
        UserError: the model has no chat template, and `prompt_template` is missing or `system_prompt` given; or the
            chat template refuses or drops a turn.
    """
    from trl.chat_template_utils import has_generation_markers, is_chat_template_stop_token_trained  # in training only

    chat = tokenizer.chat_template is not None
    if not chat and prompt_template is None:  # guessing a format would train on prompts that nobody uses
        raise UserError(
            "`prompt_template` is not set and the model has no chat template: give the full prompt, for example "
            'prompt_template: "Question: {question}\\nAnswer:".'
        )
    if not chat and system_prompt:
        raise UserError(f"`system_prompt`: the model has no chat template: {WITHOUT['system']}.")
    marked = chat and has_generation_markers(str(tokenizer.chat_template))
    if marked and not is_chat_template_stop_token_trained(tokenizer):
        logger.warning("the chat template marks answers without the token that ends them: they may not learn to end")
    if chat:  # before any work on the data
        system = [{"role": "system", "content": system_prompt}] if system_prompt else []
        chat_prompt(tokenizer, [*system, {"role": "user", "content": "question"}])
    template = prompt_template or "\n\n".join(f"{{{role}}}" for role in roles)
    return {
        "chat": chat,
        "system_prompt": system_prompt,
        "prompt_template": keep_control_tokens(tokenizer, template),
        "stop": answer_delimiters(tokenizer, chat)[1],  # not always the end-of-sequence token: Phi-3 uses <|end|>
    }


# ----- Turns of a dialogue


def earlier_turns(row: Mapping[str, Any], task: Mapping[str, Any]) -> list[Turn]:
    """Return the turns before the last one of the user: the system turn and, of a dialogue, the turns so far.

    A row's own system turn wins over `system_prompt`. `prompt_template` writes earlier turns of the user like the last
    one, without its context and examples.
    """
    columns, system = task["columns"], task["system_prompt"] if task["chat"] else None
    history: Sequence[str] = ()
    if task.get("raw_columns", {}).get("dataset_format", "columns") != "columns":
        system, history = row.get("system") or system, row.get("history") or ()
    turns = [{"role": "system", "content": system}] if system else []
    for number, text in enumerate(history):
        if number % 2:
            turns.append({"role": "assistant", "content": text})
        else:
            others = {column: "" for role in ("context", "examples") if (column := columns.get(role))}
            asked = {**row, columns["question"]: text, **others}
            turns.append({"role": "user", "content": fill_template(task["prompt_template"], columns, asked)})
    return turns


def prompt_turns(row: Mapping[str, Any], task: Mapping[str, Any]) -> list[Turn]:
    """Return all turns before the answer of a row, as configured in `task.json`."""
    user = fill_template(task["prompt_template"], task["columns"], row)
    return [*earlier_turns(row, task), {"role": "user", "content": user}]


def recent_turns(tokenizer: PreTrainedTokenizerBase, task: Mapping[str, Any], turns: Sequence[Turn]) -> list[Turn]:
    """Leave out the oldest exchanges of a dialogue until its prompt takes at most three quarters of `max_length`, so
    that an answer fits. The system turn and the last user turn always stay."""
    turns, room = list(turns), task["max_length"] - task["max_length"] // 4
    first = int(turns[0]["role"] == "system")
    while task["chat"] and len(turns) > first + 2 and _length(tokenizer, turns) > room:
        del turns[first : first + 2]
    return turns


def _length(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn]) -> int:
    return len(token_ids(tokenizer, [chat_prompt(tokenizer, turns)], False)[0])


def render_prompt(tokenizer: PreTrainedTokenizerBase, task: Mapping[str, Any], turns: Sequence[Turn]) -> str:
    """Return the prompt for the turns before an answer: the recent ones in the chat template or, for a model without
    one, the user's turn unchanged.

    Raises:
        UserError: several turns, and the model has no chat template.
    """
    if task["chat"]:
        return chat_prompt(tokenizer, recent_turns(tokenizer, task, turns))
    if len(turns) > 1:
        raise UserError(
            "the rows have several turns, and the model has no chat template: choose a model that has one."
        )
    return as_text(tokenizer, turns[-1]["content"])


def build_prompt(tokenizer: PreTrainedTokenizerBase, task: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Return the full prompt of a row, as configured in `task.json`. Training uses it as well."""
    return render_prompt(tokenizer, task, prompt_turns(row, task))


# ----- Tokens


def tokenize_dialogues(
    tokenizer: PreTrainedTokenizerBase, task: Mapping[str, Any], dialogues: Sequence[Sequence[Turn]]
) -> tuple[list[dict[str, list[int]]], Counter[str]]:
    """Tokenize dialogues, which end with an answer, for the trainer.

    The loss covers the turns of the assistant. If the chat template has `{% generation %}` markers, these say where,
    and ids and labels are those of TRL's `assistant_only_loss`. If not, an answer is learned exactly as it is given:
    its tokens are found after the prompt that serving would have at this point. Where they are not, because the
    template writes an answer differently once other turns follow (Qwen3 drops its thoughts), it gets a row of its own.

    Args:
        tokenizer: the base model's tokenizer.
        task: `chat` and `max_length`; a dialogue without a chat template has one turn of each side.
        dialogues: turns of each row.

    Returns:
        `input_ids` and `labels` (-100 outside the loss) of each row that `max_length` leaves an answer, and counts:
        `dropped_too_long` rows, whose prompt alone fills it; `cut_answers`; `cut_dialogues`, rows without their oldest
        turns; `extra_rows`, of earlier answers; and, if any, `answers_with_thoughts`, which follow an empty one.
    """
    counts = Counter(dropped_too_long=0, cut_answers=0, cut_dialogues=0, extra_rows=0)
    most, chat, answers = task["max_length"], task["chat"], [turns[-1] for turns in dialogues]
    kept = [recent_turns(tokenizer, task, turns[:-1]) for turns in dialogues]
    counts["cut_dialogues"] = sum(len(turns) + 1 < len(whole) for turns, whole in zip(kept, dialogues, strict=True))
    prompts = [render_prompt(tokenizer, task, turns) for turns in kept]
    pairs = zip(*tokenize_pairs(tokenizer, prompts, [turn["content"] for turn in answers], chat), strict=True)
    examples = []
    for turns, answer, (prompt_ids, answer_ids) in zip(kept, answers, pairs, strict=True):
        # Truncation leaves one token for the answer of a full prompt: too little to learn from
        if len(prompt_ids) >= most - 1:
            counts["dropped_too_long"] += 1
            continue
        if THOUGHT.search(answer["content"]):
            counts["answers_with_thoughts"] += 1
        ids, learned = marked_tokens(tokenizer, [*turns, answer]) if chat else ([], [])
        rows = [(ids, learned)]
        if ids[: len(prompt_ids)] != prompt_ids:  # no markers, or tokens would merge across the end of the prompt
            learned, rows = _earlier_answers(tokenizer, turns, prompt_ids)
            rows.append((prompt_ids + answer_ids, learned + [1] * len(answer_ids)))
        counts["extra_rows"] += len(rows) - 1
        for ids, learned in rows:
            counts["cut_answers"] += any(learned[most:])
            labels = [token if bit else -100 for token, bit in zip(ids[:most], learned, strict=False)]
            examples.append({"input_ids": ids[:most], "labels": labels})
    return examples, counts


def marked_tokens(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn]) -> tuple[list[int], list[int]]:
    """Return the token ids of a dialogue, and 1 for those in the `{% generation %}` markers of the chat template, else
    0, as for what a prompt ends with; both empty if it has no markers, or if a turn has a control token, as text."""
    from trl.chat_template_utils import has_generation_markers

    texts = turns_as_text(tokenizer, turns)
    if not has_generation_markers(tokenizer.chat_template) or any(BREAK in turn["content"] for turn in texts):
        return [], []
    found: Any = tokenizer.apply_chat_template(texts, return_dict=True, return_assistant_tokens_mask=True)
    ids, learned = found["input_ids"], found["assistant_masks"]
    given = token_ids(tokenizer, [generation_prompt(tokenizer)], False)[0]  # SmolLM3 has it in its markers
    for start in range(len(ids) if given else 0):
        if ids[start : start + len(given)] == given:
            learned[start : start + len(given)] = [0] * len(given)
    return ids, learned


def _earlier_answers(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], prompt_ids: list[int]
) -> tuple[list[int], list[tuple[list[int], list[int]]]]:
    """Return 1 for each token of a prompt that answered an earlier turn, else 0; and, for answers that are not found
    in the prompt as they were given, ids and such bits of a row of its own."""
    learned, rows = [0] * len(prompt_ids), []
    places = [place for place, turn in enumerate(turns) if turn["role"] == "assistant"]
    if places:
        prompts = [chat_prompt(tokenizer, turns[:place]) for place in places]
        pairs = tokenize_pairs(tokenizer, prompts, [turns[place]["content"] for place in places], True)
        for before, said in zip(*pairs, strict=True):
            start, end = len(before), len(before) + len(said)
            if prompt_ids[:end] == before + said:
                learned[start:end] = [1] * len(said)
            else:
                rows.append((before + said, [0] * len(before) + [1] * len(said)))
    return learned, rows
