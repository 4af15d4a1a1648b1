"""What a tokenizer's repository leaves out, and what a tokenizer cannot read."""

import logging
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from utils.control_tokens import BREAK, as_text, control_tokens
from utils.positions import empty_model, position_limit

logger = logging.getLogger(__name__)
MANY = 0.01  # share of a vocabulary that has capital letters; an uncased one has hardly any


def complete_tokenizer(
    load: Callable[..., PreTrainedTokenizerBase],
    stated: Mapping[str, Any],
    config: PreTrainedConfig,
    trust_remote_code: bool = False,
) -> PreTrainedTokenizerBase:
    """Load a tokenizer, and set what its repository leaves out.

    - Case: BERT's tokenizer writes everything in lower case by default, which fits no cased model (Bio_ClinicalBERT).
    - `model_max_length`: 1e30 by default; the positions of the model are the most that it can be.

    Args:
        load: loads the tokenizer, with further settings as keywords.
        stated: the settings in the repository.
        config: of the model.
        trust_remote_code: run code from the model repository.
    """
    tokenizer = load()
    if loses_capitals(tokenizer) and "do_lower_case" not in stated:
        tokenizer = load(do_lower_case=False)
        if not loses_capitals(tokenizer):
            logger.warning(
                "the vocabulary has pieces with capital letters, and the repository does not say `do_lower_case`: "
                "set to false"
            )
    if loses_capitals(tokenizer):
        logger.warning("the tokenizer writes everything in lower case, but its vocabulary has pieces with capitals")
    model = empty_model(config, trust_remote_code)
    limit = position_limit(model, "encoder" if config.is_encoder_decoder else "") if model else None
    tokenizer.model_max_length = min(tokenizer.model_max_length, limit or tokenizer.model_max_length)
    return tokenizer


def loses_capitals(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether a tokenizer writes everything in lower case though its vocabulary has pieces with capitals."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.normalizer is None or "A" in backend.normalizer.normalize_str("A"):
        return False
    pieces = tokenizer.get_vocab().keys() - control_tokens(tokenizer).names
    return sum(piece != piece.lower() for piece in pieces) > MANY * len(pieces)


def unread(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], ids: Iterable[Sequence[int]]) -> dict[str, Any]:
    """Count what the model does not see as it was written, and warn about it.

    Args:
        tokenizer: the model's tokenizer.
        texts: texts of rows.
        ids: their token ids.

    Returns:
        `unknown_tokens`, the number of tokens that stand for something unknown; `unknown_characters`, the characters
        behind them, separated by spaces, if there are any; `flattened_characters`, those of `flattened`, if any; and
        `control_token_texts`, the number of texts that spell control tokens, which are read as text.
    """
    unknown_id = _unknown_id(tokenizer)
    unknown = 0 if unknown_id is None else sum(row.count(unknown_id) for row in ids)
    spelled = sum(BREAK in as_text(tokenizer, text) for text in texts)
    counts: dict[str, Any] = {"unknown_tokens": unknown, "control_token_texts": spelled}
    if spelled:
        logger.warning("%d of %d texts spell control tokens, which are read as text", spelled, len(texts))
    if unknown:
        found = sorted(unknown_characters(tokenizer, texts))
        named = f": the model does not see {' '.join(found)}" if found else ""
        logger.warning("%d tokens of %d texts are unknown to the tokenizer%s", unknown, len(texts), named)
        counts |= {"unknown_characters": " ".join(found)} if found else {}
    if flat := " ".join(sorted(flattened(tokenizer, texts))):
        logger.warning("the tokenizer writes %s as plain digits or letters: write 10^9 for 10⁹, 1.5 for 1½", flat)
        counts["flattened_characters"] = flat
    return counts


def unknown_characters(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> set[str]:
    """Return the characters of texts that the tokenizer does not know."""
    unknown_id = _unknown_id(tokenizer)
    characters = sorted({character for text in texts for character in text if not character.isspace()})
    if unknown_id is None or not characters:
        return set()
    alone = tokenizer(characters, add_special_tokens=False)["input_ids"]
    return {character for character, ids in zip(characters, alone, strict=True) if unknown_id in ids}


def flattened(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> set[str]:
    """Return the superscripts, subscripts and fractions that the tokenizer writes as plain characters: T5 makes 109 of
    10⁹, and eleven halves of 1½."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.normalizer is None:
        return set()
    kinds = ("<super>", "<sub>", "<fraction>")
    found = {character for character in set().union(*texts) if unicodedata.decomposition(character).startswith(kinds)}
    return {character for character in found if character not in backend.normalizer.normalize_str(f"1{character}")}


def _unknown_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the id of the unknown token, or None for tokenizers of bytes, which name another token so (GPT-2)."""
    others = [token for name, token in tokenizer.special_tokens_map.items() if name != "unk_token"]
    return None if tokenizer.unk_token in others else tokenizer.unk_token_id
