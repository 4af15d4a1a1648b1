"""Read the text of a row as text, even where it spells control tokens such as `[SEP]` or `<|im_end|>`.

A tokenizer turns a control token into structure wherever it stands, so a question could end its own turn and forge an
answer. Here only templates write structure: the chat template of the model, and a template of the recipe.

The tokenizer's own `split_special_tokens` is not enough: a Unigram tokenizer (T5) then finds `</s>` in its vocabulary,
and a control token that was added without being special stays one.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, cast

from transformers import PreTrainedTokenizerBase

from utils.arguments import UserError

# Noncharacters of Unicode, which have no place in a text: `plain_text` takes them out of the values of a row
STRUCTURE = "\ufdd0"  # stands before a control token that a template of the recipe writes
BREAK = "\ufdd1"  # stands inside a control token of a text, so that no tokenizer finds it
MARKS = str.maketrans("", "", STRUCTURE + BREAK)
ANSWER = "\N{BLACK SQUARE}"
# The tags around what a model thinks before it answers: <think>, </think>, [THINK], <seed:think>, <reasoning>
THOUGHT = re.compile(r"[<\[]/?\|?(?:\w+:)?(?:think|thinking|thought|reasoning)\|?[>\]]", re.IGNORECASE)


class ControlTokens(NamedTuple):
    """The control tokens of a tokenizer; `pattern` finds them in a text, in any case."""

    names: frozenset[str]
    ids: frozenset[int]
    pattern: re.Pattern[str]


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> ControlTokens:
    """Return the tokens that are structure: special tokens, and others that the chat template writes around a turn.

    Other added tokens are words of a domain, or written by the model itself (`<think>`). They stay tokens.
    """
    return _control_tokens(tokenizer, str(tokenizer.chat_template))


@lru_cache(maxsize=8)
def _control_tokens(tokenizer: PreTrainedTokenizerBase, chat_template: str) -> ControlTokens:
    written, added = _written(tokenizer), tokenizer.added_tokens_decoder
    names = {token.content for index, token in added.items() if token.special or index in written}
    names |= {*tokenizer.all_special_tokens, *(getattr(tokenizer, "chat_control_tokens", None) or ())}
    names = {name for name in names if not name.isspace()}  # Gemma's added tokens of line breaks are text
    longest_first = sorted(names, key=lambda name: (-len(name), name))
    pattern = "|".join(map(re.escape, longest_first)) or "(?!)"  # which matches nothing
    ids = frozenset(cast(list[int], tokenizer.convert_tokens_to_ids(longest_first)))
    return ControlTokens(frozenset(names), ids, re.compile(pattern, re.IGNORECASE))


def _written(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the token ids that the chat template writes around the turns of system, user and assistant."""
    if tokenizer.chat_template is None:
        return set()
    user = {"role": "user", "content": "a"}
    asked, answered = [{"role": "system", "content": "a"}, user], [user, {"role": "assistant", "content": ANSWER}]
    found: set[int] = set()
    for turns in ([user], asked, answered):
        try:
            text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=turns is not answered)
        except Exception:  # some templates take no system turn; `chat_prompt` says so
            continue
        written = THOUGHT.sub("", str(text).split(ANSWER)[-1])  # what stands before an answer may belong to it
        found.update(tokenizer(written, add_special_tokens=False)["input_ids"])
    return found


def keep_control_tokens(tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    """Mark the control tokens in a template of the recipe, such as "{title} [SEP] {text}": they are structure."""
    pattern = control_tokens(tokenizer).pattern
    return pattern.sub(lambda match: STRUCTURE + match[0], plain_text(template))


def plain_text(text: str) -> str:
    """Return a text without the marks of this module."""
    return text.translate(MARKS)


def as_text(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """Break each control token of a text for the tokenizer, except those that a template of the recipe marks.

    Raises:
        UserError: the text has a control token of one character, which cannot be broken.
    """
    pattern = control_tokens(tokenizer).pattern
    backend = getattr(tokenizer, "backend_tokenizer", None)
    # A normalizer can make a control token of other characters: T5 reads full-width brackets as "<" and ">"
    read = backend.normalizer.normalize_str(text) if backend and backend.normalizer else text
    if not pattern.search(text) and not pattern.search(read):
        return text
    parts = re.split(f"{STRUCTURE}({pattern.pattern})", text, flags=re.IGNORECASE)
    return "".join(part if i % 2 else _broken(tokenizer, part) for i, part in enumerate(parts))


def _broken(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    pieces, n_pieces = [text.replace(STRUCTURE, "")], 0
    while len(pieces) > n_pieces:  # a piece can hold a control token that a longer one has hidden
        n_pieces = len(pieces)
        cuts = [(piece, [0, *_places(tokenizer, piece), len(piece)]) for piece in pieces]
        pieces = [piece[a:b] for piece, at in cuts for a, b in zip(at, at[1:], strict=False)]
    return BREAK.join(pieces)


def _places(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return where to break a text: after the first character of each control token that the tokenizer finds."""
    names, ids, pattern = control_tokens(tokenizer)
    if tokenizer.is_fast:
        found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        spans = [
            (start, end)
            for index, (start, end) in zip(found["input_ids"], found["offset_mapping"], strict=True)
            # The token of everything unknown is structure only where it is spelled out
            if index in ids and (index != tokenizer.unk_token_id or text[start:end].strip() == tokenizer.unk_token)
        ]
        is_stuck = False
    else:
        spans = [match.span() for match in pattern.finditer(text) if match[0] in names]
        left = set(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) & ids
        is_stuck = not spans and bool(left - {tokenizer.unk_token_id})
    places = [end - len(text[start:end].lstrip()) + 1 for start, end in spans]
    if is_stuck or any(place >= len(text[:end].rstrip()) for place, (_, end) in zip(places, spans, strict=True)):
        raise UserError(
            "a text has a control token that the tokenizer of `model_name_or_path` cannot read as text, such as one "
            "of a single character: delete it from the text, or choose another model."
        )
    return places


def special_tokens(tokenizer: PreTrainedTokenizerBase, target: bool = False) -> tuple[list[int], list[int]]:
    """Return the ids of the special tokens that the tokenizer adds before and after a text ([CLS], [SEP]).

    Args:
        tokenizer: a model's tokenizer.
        target: whether the text is one that the model writes; for some (mBART) the tokens differ.
    """
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = (tokenizer(text_target="a") if target else tokenizer("a"))["input_ids"]
    start = next(i for i in range(len(whole)) if whole[i : i + len(plain)] == plain)
    return whole[:start], whole[start + len(plain) :]


def text_ids(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], add_special_tokens: bool = True, target: bool = False
) -> list[list[int]]:
    """Tokenize texts as text; see `token_ids`."""
    return token_ids(tokenizer, [as_text(tokenizer, text) for text in texts], add_special_tokens, target)


def token_ids(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], add_special_tokens: bool = True, target: bool = False
) -> list[list[int]]:
    """Tokenize texts without truncation, and read as text what `as_text` broke.

    Args:
        tokenizer: the model's tokenizer.
        texts: from `as_text` or a chat template; a control token that is not broken is structure.
        add_special_tokens: whether to add the special tokens around a text.
        target: whether these are those of a text that the model writes.
    """
    parts = [text.split(BREAK) for text in texts]
    starts = [first for first, *_ in parts]
    given = {"text_target": starts} if target else {"text": starts}
    ids = tokenizer(**given, add_special_tokens=add_special_tokens, truncation=False, verbose=False)["input_ids"]
    after = special_tokens(tokenizer, target)[1] if add_special_tokens else []
    for row, (_, *rest) in enumerate(parts):
        if rest:
            inner = [index for piece in rest for index in _inner_ids(tokenizer, piece)]
            ids[row] = [*ids[row][: len(ids[row]) - len(after)], *inner, *after]
    return ids


def _inner_ids(tokenizer: PreTrainedTokenizerBase, piece: str) -> list[int]:
    """Tokenize a piece from the middle of a text: after a character that does not merge with it, which is taken off
    again, since SentencePiece adds a space to the start of a text."""
    for lead in (".", "\n", "a"):
        head, whole = tokenizer([lead, lead + piece], add_special_tokens=False, verbose=False)["input_ids"]
        if head and whole[: len(head)] == head:
            return whole[len(head) :]
    return tokenizer(piece, add_special_tokens=False, verbose=False)["input_ids"]
