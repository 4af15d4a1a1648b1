"""Split long sources into chunks that fit a model, and merge the summaries of the chunks."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from utils.arguments import UserError
from utils.chat import chat_prompt
from utils.control_tokens import as_text, text_ids, token_ids
from utils.templates import fill_template
from utils.words import SENTENCES, split_words

WORDS = re.compile(r"\s*\S{1,50}")  # a word with its leading white space; longer words are split


def cut_sources(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Mapping[str, Any]], task: Mapping[str, Any]
) -> tuple[list[list[str]], list[int]]:
    """Fill the text template of each row so that it fits the model.

    Only the text is cut; the rest of the template is repeated in every chunk.

    Args:
        tokenizer: the model's tokenizer.
        rows: the text and the columns that the template names.
        task: `text_template`, `columns`, `chat` (see `source_ids`), `max_source_length` (tokens), `max_chunks`, and
            `long_texts`, how to read longer texts. `head`: only the beginning. `head_tail`: a quarter of the tokens
            from the beginning, the rest from the end. `chunks`: up to `max_chunks` chunks, which end at a line break
            if they are at least half full there.

    Returns:
        the inputs of each row, one text or several chunks; and the number of tokens of each row that no chunk holds.

    Raises:
        UserError: the template leaves no room for the text.
    """
    filled = [_fill(task, row) for row in rows]
    lengths = [len(ids) for ids in source_ids(tokenizer, filled, task.get("chat"))]
    found, lost = [[text] for text in filled], [0] * len(filled)
    for i, length in enumerate(lengths):
        if length > task["max_source_length"]:
            found[i], lost[i] = _cut(tokenizer, rows[i], task)
    return found, lost


def source_prompts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], chat: bool) -> list[str]:
    """Return the prompts of a decoder: filled templates, in its chat template if it has one (`chat`)."""
    if not chat:
        return [as_text(tokenizer, text) for text in texts]
    return [chat_prompt(tokenizer, [{"role": "user", "content": text}]) for text in texts]


def source_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], chat: bool | None) -> list[list[int]]:
    """Tokenize filled templates as the model reads them; `chat` is None for an encoder-decoder."""
    if chat is None:
        return text_ids(tokenizer, texts)
    return token_ids(tokenizer, source_prompts(tokenizer, texts, chat), not chat)


def _fill(task: Mapping[str, Any], row: Mapping[str, Any], text: str | None = None) -> str:
    changed = {} if text is None else {task["columns"]["text"]: text}
    return fill_template(task["text_template"], task["columns"], {**row, **changed}, "text_template")


def _cut(tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Any], task: Mapping[str, Any]) -> tuple[list[str], int]:
    """Return the chunks of a long row, and the number of its tokens that no chunk holds."""
    words = WORDS.findall(row[task["columns"]["text"]])
    counts = [len(ids) for ids in text_ids(tokenizer, words, add_special_tokens=False)]
    room = task["max_source_length"] - len(source_ids(tokenizer, [_fill(task, row, "")], task.get("chat"))[0])
    while room > 0:
        spans = _spans(words, np.cumsum([0, *counts]), room, task["long_texts"], task["max_chunks"])
        pieces = [_fill(task, row, "".join(word for a, b in own for word in words[a:b])) for own in spans]
        lengths = [len(ids) for ids in source_ids(tokenizer, pieces, task.get("chat"))]
        over = max(lengths) - task["max_source_length"]
        if over <= 0:
            return pieces, sum(counts) - sum(sum(counts[a:b]) for own in spans for a, b in own)
        room -= over  # adjacent words may take more tokens than the sum of each
    raise UserError(
        f"`max_source_length` is {task['max_source_length']} tokens, which `text_template` fills without the text: "
        "increase it, or use fewer columns in the template."
    )


def _spans(
    words: list[str], total: np.ndarray, room: int, long_texts: str, max_chunks: int
) -> list[list[tuple[int, int]]]:
    """Return the word ranges of each chunk. `total` holds the cumulative token counts, [words + 1]."""

    def end_of(start: int, tokens: int) -> int:
        return max(start + 1, int(np.searchsorted(total, total[start] + tokens, side="right")) - 1)

    if long_texts == "head":
        return [[(0, end_of(0, room))]]
    if long_texts == "head_tail":
        tail = int(np.searchsorted(total, total[-1] - (room - room // 4)))
        return [[(0, end_of(0, room // 4)), (tail, len(words))]]
    chunks: list[list[tuple[int, int]]] = []
    start = 0
    while start < len(words) and len(chunks) < max_chunks:
        end = end_of(start, room)
        if end < len(words):
            lines = [
                i for i in range(end_of(start, room // 2), end + 1) if "\n" in words[i][: -len(words[i].lstrip())]
            ]
            end = lines[-1] if lines else end
        chunks.append([(start, end)])
        start = end
    return chunks


def split_summary(summary: str, chunks: Sequence[str]) -> list[str]:
    """Assign each sentence of a summary to a chunk; a chunk may get an empty part."""
    if len(chunks) == 1:
        return [summary]
    known = [set(split_words(chunk.lower())) for chunk in chunks]
    parts = [""] * len(chunks)
    for sentence in SENTENCES.findall(summary):
        words = set(split_words(sentence.lower()))
        parts[max(range(len(chunks)), key=lambda i: len(words & known[i]))] += sentence
    return [part.strip() for part in parts]
