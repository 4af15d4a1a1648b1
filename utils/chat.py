"""Render turns with a model's chat template, and refuse turns that the template cannot take or leaves out."""

import logging
from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from trl.chat_template_utils import has_generation_markers, is_chat_template_stop_token_trained

from utils.arguments import UserError
from utils.control_tokens import as_text, keep_control_tokens, plain_text

logger = logging.getLogger(__name__)
Turn = dict[str, str]  # `role` and `content`, as chat templates take them
WITHOUT = {  # what to do instead of a turn
    "system": "delete `system_prompt` and the rows' system turns, and write the instruction into `prompt_template`",
    "user": "choose a model with another chat template",
}
MARKER = "\N{BLACK SQUARE}"  # placeholder for the answer while a chat template is parsed


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
