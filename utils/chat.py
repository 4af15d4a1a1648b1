"""Render turns with a model's chat template, refuse turns that it cannot take or leaves out, and tokenize prompts with
their answers."""

import datetime
import logging
import re
from collections.abc import Sequence
from typing import cast

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from utils.arguments import UserError
from utils.control_tokens import THOUGHT, as_text, plain_text, token_ids

logger = logging.getLogger(__name__)
Turn = dict[str, str]  # `role` and `content`, as chat templates take them
WITHOUT = {  # what to do instead of a turn
    "system": "delete `system_prompt` and the rows' system turns, and write the instruction into `prompt_template`",
    "user": "choose a model with another chat template",
}
MARKER = "\N{BLACK SQUARE}"  # placeholder for the answer while a chat template is parsed
TODAY = re.compile(r"""strftime_now\(\s*("[^"{}\\]*"|'[^'{}\\]*')\s*\)""")  # in a chat template, with its format
NO_THINKING = "{% set enable_thinking = false %}"
DATE = datetime.datetime(2024, 7, 26)  # Llama 3's own where a library knows no date


# ----- Templates that write the same for training and for serving


def settle_chat_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a tokenizer with a chat template one that writes no date of the day and no open thought before an answer.

    Raises:
        UserError: the template can do neither.
    """
    if tokenizer.chat_template is not None:
        tokenizer.chat_template = with_fixed_date(str(tokenizer.chat_template))
        tokenizer.chat_template = without_thoughts(tokenizer)


def with_fixed_date(template: str) -> str:
    """Return a chat template that writes a fixed date where it would write that of the day (Llama 3, gpt-oss).

    Else each day would have another prompt: serving would differ from training, and a run could not go on tomorrow.

    Raises:
        UserError: the format of the date is computed.
    """
    fixed = TODAY.sub(lambda match: repr(DATE.strftime(match[1][1:-1])), template)
    if "strftime_now(" in fixed:
        raise UserError(
            "the chat template of the model writes the date of the day: give one with a fixed date as "
            "`chat_template_path`."
        )
    if fixed != template:
        logger.warning("the chat template writes the date of the day: fixed to %s, also for serving", DATE.date())
    return fixed


def without_thoughts(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the chat template of a tokenizer with the empty thought that it writes, if any, as a part of the prompt.

    Templates of models that can think (Qwen3, SmolLM3) write an empty thought before an answer without one, but end
    a prompt before it or within it. A model would learn to write it, and begin each answer with it.

    Raises:
        UserError: every answer begins with a thought (DeepSeek-R1, Qwen3-Thinking).
    """
    own = template = str(tokenizer.chat_template)
    if "enable_thinking" in own and not own.startswith(NO_THINKING):  # that of an adapter has it
        tokenizer.chat_template = template = NO_THINKING + own
    tags, (written, _) = THOUGHT.findall(generation_prompt(tokenizer)), answer_delimiters(tokenizer, True)
    tokenizer.chat_template = own
    if tags and "/" not in tags[-1]:
        raise UserError(
            f"the chat template of the model begins each answer with a thought ({tags[-1]}), and your answers have "
            "none: choose a model that can answer without one, such as Instruct in place of Thinking, or give another "
            "template as `chat_template_path`."
        )
    if THOUGHT.search(written):
        template = template.removesuffix("\n") + f"{{% if add_generation_prompt %}}{{{{ {written!r} }}}}{{% endif %}}"
    if template != own:
        logger.info("the chat template answers without thoughts, also when the model is served")
    return template


def generation_prompt(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return what the chat template writes between a question and its answer."""
    question = [{"role": "user", "content": MARKER}]
    return _render(tokenizer, question, add_generation_prompt=True).rpartition(MARKER)[2]


def chat_prompt(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn]) -> str:
    """Render the turns before an answer with the chat template, up to where the answer begins. A control token in a
    turn is text.

    Raises:
        UserError: the chat template refuses or drops one of these turns; some know no system turn.
    """
    texts = turns_as_text(tokenizer, turns)
    prompt = _render(tokenizer, texts, add_generation_prompt=True)
    for turn in texts:
        if turn["role"] != "assistant" and turn["content"].strip() not in prompt:
            raise UserError(f"the chat template of the model drops the {turn['role']} turn: {WITHOUT[turn['role']]}.")
    return prompt


def _render(tokenizer: PreTrainedTokenizerBase, turns: list[Turn], add_generation_prompt: bool) -> str:
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=add_generation_prompt))
    except Exception as error:  # a template is a program of the model's repository, and may fail in any way
        roles, without = ", ".join(turn["role"] for turn in turns[:3]), WITHOUT.get(turns[0]["role"], WITHOUT["user"])
        # Errors of Python may quote a row
        reason = error if isinstance(error, TemplateError) else type(error).__name__
        raise UserError(f"the chat template of the model refuses turns of {roles} ({reason}): {without}.") from error


def turns_as_text(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn]) -> list[Turn]:
    """Break the control tokens in turns, which are text; see `as_text`."""
    # Only `prompt_template`, which writes the user's turns, can mark control tokens as structure
    texts = [turn["content"] if turn["role"] == "user" else plain_text(turn["content"]) for turn in turns]
    return [turn | {"content": as_text(tokenizer, text)} for turn, text in zip(turns, texts, strict=True)]


def answer_delimiters(tokenizer: PreTrainedTokenizerBase, chat: bool) -> tuple[str, str]:
    """Return the text between a prompt and its answer, and the token that ends an answer.

    For a chat model both are read off the template, since end-of-turn tokens differ: Phi-3 ends a turn with `<|end|>`,
    not with its end-of-sequence token. A plain prompt is followed by a space, and its answer by the end-of-sequence
    token.
    """
    if not chat:
        return " ", tokenizer.eos_token
    turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": MARKER}]
    prompt, full = chat_prompt(tokenizer, turns[:1]), _render(tokenizer, turns, add_generation_prompt=False)
    if not full.startswith(prompt) or MARKER not in full:
        return "", tokenizer.eos_token
    before, after = full[len(prompt) :].split(MARKER, 1)
    # By id: the name that `tokenize` gives includes the white space that a token eats, as Phi-3's `<|end|>` does
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    ends = [index for index in tokenizer(after, add_special_tokens=False)["input_ids"] if index in special]
    return before, str(tokenizer.convert_ids_to_tokens(ends[0])) if ends else tokenizer.eos_token


def tokenize_pairs(
    tokenizer: PreTrainedTokenizerBase, prompts: list[str], answers: list[str] | None, chat: bool
) -> tuple[list[list[int]], list[list[int]]]:
    """Tokenize prompts and answers; each answer ends with its stop token.

    Prompt and answer are tokenized jointly, as in pretraining text, unless tokens would merge across the boundary;
    then they are tokenized separately. Either way the model trains on exactly the prompt tokens that it sees at
    inference.

    Args:
        tokenizer: the base model's tokenizer.
        prompts: full prompts, from `render_prompt`.
        answers: one per prompt, or None to tokenize only the prompts.
        chat: whether the prompts come from a chat template, which adds its own first token.

    Returns:
        token ids of the prompts and of the answers (empty without answers).
    """
    prompt_ids = token_ids(tokenizer, prompts, not chat)
    if answers is None:
        return prompt_ids, []
    before, stop = answer_delimiters(tokenizer, chat)
    stop_id = cast(int, tokenizer.convert_tokens_to_ids(stop))
    texts = [before + as_text(tokenizer, plain_text(answer)) for answer in answers]
    joint_ids = token_ids(tokenizer, [p + t for p, t in zip(prompts, texts, strict=True)], not chat)
    answer_ids = []
    for prompt, joint, text in zip(prompt_ids, joint_ids, texts, strict=True):
        together = joint[: len(prompt)] == prompt
        ids = joint[len(prompt) :] if together else token_ids(tokenizer, [text], False)[0]
        answer_ids.append([*ids, stop_id])
    return prompt_ids, answer_ids
