"""The tokenizer of a language model with the chat template and the end token that a recipe names."""

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase
from trl import ModelConfig, SFTConfig

from utils.arguments import UserError
from utils.chat import answer_delimiters, settle_chat_template
from utils.modeling import architecture, load_config, load_tokenizer


def load_chat_tokenizer(
    args: ModelConfig, training_args: SFTConfig, first_adapter: Path | None = None
) -> PreTrainedTokenizerBase:
    """Load the tokenizer as `load_tokenizer` does, with `chat_template_path` and `eos_token` of the recipe.

    Rows, evaluation and the saved tokenizer, which serving loads, then agree. SFTTrainer would set them only after
    the rows are tokenized, so it no longer gets the template, and may add no tokens for it.

    Raises:
        UserError: tokenizer or template cannot be loaded, the model is no language model, a token is unknown, or
            answers end with another token.
    """
    config = load_config(args, training_args.trust_remote_code)
    if (found := architecture(config)) in ("encoder", "encoder-decoder"):
        script = "run_classification.py" if found == "encoder" else "run_summarization.py"
        name = f"`model_name_or_path` {args.model_name_or_path} ({config.model_type})"
        raise UserError(f"{name} is an {found}, which writes no answers: choose a decoder, or use {script}.")
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
    settle_chat_template(tokenizer)
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
