"""Long sources in pieces that a model can read, and the summaries of the pieces in one."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from utils.arguments import UserError
from utils.prompts import fill_template

WORDS = re.compile(r"\s*\S{1,50}")  # with the white space before; a longer word is cut
SENTENCES = re.compile(r"\s*\S.*?(?:[.!?]+(?=\s|$)|$)", re.MULTILINE)  # a line's end is one too


def cut_sources(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Mapping[str, Any]], task: Mapping[str, Any]
) -> tuple[list[list[str]], list[int]]:
    """Fill the text template of each row so that the model can read it whole.

    The text alone is cut; what the template says around it stands in every piece.

    Args:
        tokenizer: of the model.
        rows: with the text and the columns that the template names.
        task: `text_template`, `columns`, `max_source_length` (tokens), and `long_texts`, what of a text that is
            longer: `head`, its beginning; `head_tail`, a quarter of the room from its beginning and the rest from its
            end; `chunks`, all of it in pieces of whole lines where that leaves them half full, up to `max_chunks`.

    Returns:
        what the model reads of each row, one text or several chunks; and tokens of each row that it does not see.

    Raises:
        UserError: the template leaves no room for a text.
    """
    filled = [_fill(task, row) for row in rows]
    lengths = [len(ids) for ids in tokenizer(filled, truncation=False, verbose=False)["input_ids"]]
    found, lost = [[text] for text in filled], [0] * len(filled)
    for i, length in enumerate(lengths):
        if length > task["max_source_length"]:
            found[i], lost[i] = _cut(tokenizer, rows[i], task)
    return found, lost


def _fill(task: Mapping[str, Any], row: Mapping[str, Any], text: str | None = None) -> str:
    changed = {} if text is None else {task["columns"]["text"]: text}
    return fill_template(task["text_template"], task["columns"], {**row, **changed}, "text_template")


def _cut(tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Any], task: Mapping[str, Any]) -> tuple[list[str], int]:
    """The pieces of one long row, and its tokens that are in none."""
    words = WORDS.findall(row[task["columns"]["text"]])
    counts = [len(ids) for ids in tokenizer(words, add_special_tokens=False)["input_ids"]]
    room = task["max_source_length"] - len(tokenizer(_fill(task, row, ""))["input_ids"])
    while room > 0:
        spans = _spans(words, np.cumsum([0, *counts]), room, task["long_texts"], task["max_chunks"])
        pieces = [_fill(task, row, "".join(word for a, b in own for word in words[a:b])) for own in spans]
        lengths = [len(ids) for ids in tokenizer(pieces, verbose=False)["input_ids"]]
        over = max(lengths) - task["max_source_length"]
        if over <= 0:
            return pieces, sum(counts) - sum(sum(counts[a:b]) for own in spans for a, b in own)
        room -= over  # words side by side may take more tokens than each alone
    raise UserError(
        f"`max_source_length` is {task['max_source_length']} tokens, and `text_template` without the text fills them: "
        "raise it, or name fewer columns in the template."
    )


def _spans(
    words: list[str], total: np.ndarray, room: int, long_texts: str, max_chunks: int
) -> list[list[tuple[int, int]]]:
    """The ranges of words of each piece; `total` are the tokens before each word, and before the end."""

    def end_of(start: int, tokens: int) -> int:
        return max(start + 1, int(np.searchsorted(total, total[start] + tokens, side="right")) - 1)

    if long_texts == "head":
        return [[(0, end_of(0, room))]]
    if long_texts == "head_tail":
        tail = int(np.searchsorted(total, total[-1] - (room - room // 4)))
        return [[(0, end_of(0, room // 4)), (tail, len(words))]]
    chunks, start = [], 0
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
    """The part of a summary for each chunk, "" for none."""
    if len(chunks) == 1:
        return [summary]
    known = [set(re.findall(r"\w+", chunk.lower())) for chunk in chunks]
    parts = [""] * len(chunks)
    for sentence in SENTENCES.findall(summary):
        words = set(re.findall(r"\w+", sentence.lower()))
        parts[max(range(len(chunks)), key=lambda i: len(words & known[i]))] += sentence
    return [part.strip() for part in parts]


def join_summaries(summaries: Sequence[str]) -> str:
    """One text of the summaries of a text's chunks, without sentences that stood in an earlier one."""
    seen: set[str] = set()
    kept = []
    for summary in summaries:
        sentences = {" ".join(sentence.casefold().split()): sentence for sentence in SENTENCES.findall(summary)}
        kept.append("".join(sentence for key, sentence in sentences.items() if key not in seen).strip())
        seen |= sentences.keys()
    return ("\n" if any("\n" in text for text in kept) else " ").join(text for text in kept if text)
