"""The tokenizer of a language model with the chat template and the end token that a recipe names."""

import datetime
import logging
import re
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase
from trl import ModelConfig, SFTConfig

from utils.arguments import UserError
from utils.modeling import load_tokenizer
from utils.prompts import answer_delimiters

logger = logging.getLogger(__name__)
TODAY = re.compile(r"""strftime_now\(\s*("[^"{}\\]*"|'[^'{}\\]*')\s*\)""")  # in a chat template, with its format
DATE = datetime.datetime(2024, 7, 26)  # Llama 3's own where a library knows no date


def load_chat_tokenizer(
    args: ModelConfig, training_args: SFTConfig, first_adapter: Path | None = None
) -> PreTrainedTokenizerBase:
    """Load the tokenizer as `load_tokenizer` does, with `chat_template_path` and `eos_token` of the recipe.

    Rows, evaluation and the saved tokenizer, which serving loads, then agree. SFTTrainer would set them only after
    the rows are tokenized, so it no longer gets the template, and may add no tokens for it.

    Raises:
        UserError: tokenizer or template cannot be loaded, a token is unknown, or answers end with another token.
    """
    tokenizer = load_tokenizer(args, training_args.trust_remote_code, first_adapter)
    vocabulary, eos_token = tokenizer.get_vocab(), training_args.eos_token
    if training_args.chat_template_path:
        path = training_args.chat_template_path
        template, tokens = read_chat_template(path, training_args.trust_remote_code)
        if missing := sorted(token for token in tokens if token not in vocabulary):
            raise UserError(
                f"`chat_template_path` {path} writes `{missing[0]}`, which is no token of `model_name_or_path`: give "
                "the template of a model of its family, or a .jinja file."
            )
        tokenizer.chat_template, training_args.chat_template_path = template, None
    if tokenizer.chat_template is not None:
        tokenizer.chat_template = with_fixed_date(str(tokenizer.chat_template))
    if eos_token is not None:
        if eos_token not in vocabulary:
            raise UserError(
                f"`eos_token` is {eos_token}, which is no token of `model_name_or_path`: give one that is."
            )
        tokenizer.eos_token = eos_token
        if tokenizer.chat_template is not None and (end := answer_delimiters(tokenizer, True)[1]) != eos_token:
            raise UserError(
                f"`eos_token` is {eos_token}, but the chat template ends an answer with {end}: delete `eos_token`, or "
                "give another template as `chat_template_path`."
            )
    return tokenizer


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


def read_chat_template(path: str, trust_remote_code: bool) -> tuple[str, set[str]]:
    """Return a chat template, and the special tokens that it writes as far as its tokenizer tells.

    Args:
        path: a file, or the folder or Hub id of a tokenizer.
        trust_remote_code: run code of that tokenizer's repository.
    """
    if Path(path).is_file():
        try:
            return Path(path).read_text(encoding="utf-8"), set()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"`chat_template_path` {path} cannot be read ({error}): give a text file.") from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
        template = str(tokenizer.get_chat_template())
    except (OSError, ValueError) as error:
        raise UserError(
            f"`chat_template_path` {path} is neither a file nor a tokenizer with a chat template: give one of them."
        ) from error
    return template, {token for token in tokenizer.get_added_vocab() if token in template}
