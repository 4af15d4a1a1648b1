"""Retrieval-augmented answers: find passages of your own texts and put them into the prompt.

The passages are ranked with BM25 (Robertson et al. 1994; library bm25s, Lu 2024), which needs no model, no training
and no network.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import bm25s
import numpy as np
from bm25s.stopwords import STOPWORDS_EN_PLUS
from transformers import PreTrainedTokenizerBase

from utils.arguments import UserError
from utils.chat import tokenize_pairs
from utils.data.files import read_rows
from utils.examples import COLUMN
from utils.factuality.assertions import SENTENCE
from utils.factuality.words import split_words
from utils.prompts import build_prompt
from utils.words import word_pieces

# bm25s lists single letters (from "I'd", "it's") as stop words; all except the words "a" and "i" are kept: vitamin D
STOP_WORDS = {word for word in STOPWORDS_EN_PLUS if len(word) > 1} | {"a", "i"}
PASSAGE_WORDS = 150  # maximum per passage; benchmarks/retrieval.py compares it with 75 and 300
MAX_PASSAGES = 3  # per prompt
NO_SUPPORT = "no passage supports this"
PROMPT = (
    "{passages}\n\nAnswer from these passages alone and cite them by number, like [1]. If none of them holds the "
    f"answer, say: {NO_SUPPORT}.\n\n{{question}}"
)


class Passage(NamedTuple):
    """A passage of the corpus; `score` is its BM25 score for the question: above 0, unbounded."""

    id: str
    title: str
    source: str
    text: str
    score: float = 0.0


class Retriever:
    """BM25 index of the passages of a corpus.

    Example:
        >>> Retriever.from_file("leaflets.csv").search("What helps against hay fever?", k=3)
    """

    def __init__(self, passages: Sequence[Passage]) -> None:
        self.passages = list(passages)
        self.index = bm25s.BM25()  # k1 1.5, b 0.75, Lucene's idf
        self.index.index([search_terms(f"{p.title} {p.text}") for p in self.passages], show_progress=False)

    @classmethod
    def from_file(cls, path: str | Path, passage_words: int = PASSAGE_WORDS) -> "Retriever":
        """Read a corpus and cut its texts into passages.

        Args:
            path: file in a format of `utils.data.files.read_rows`, with the column `text` and optional columns `id`
                (default: the row number), `title` and `source`.
            passage_words: maximum words per passage.

        Raises:
            UserError: the file does not exist, has no column `text`, or has a text without words.
        """
        passages = []
        for number, row in read_rows(path, ("id", "text", "title", "source")):
            if "text" not in row:
                raise UserError(f"{path}, row {number} has no column `text`, only {', '.join(row)}: rename one.")
            if not search_terms(str(row["text"] or "")):
                raise UserError(f"{path}, row {number}: `text` has no words: fill in a text or delete the row.")
            name, title, source = (str(row.get(key) or "") for key in ("id", "title", "source"))
            texts = cut_passages(str(row["text"]), passage_words)
            passages += [Passage(name or str(number), title, source, text) for text in texts]
        return cls(passages)

    def search(self, question: str, k: int = 3) -> list[Passage]:
        """Return up to `k` passages that share words with a question, best first; ties in the order of the corpus."""
        terms = self.index.get_tokens_ids(search_terms(question))
        if not terms:
            return []
        scores = self.index.get_scores_from_ids(terms)
        best = np.argsort(-scores, kind="stable")[:k].tolist()
        return [self.passages[i]._replace(score=float(scores[i])) for i in best if scores[i] > 0]


def read_corpus(path: str | Path, task: Mapping[str, Any]) -> Retriever:
    """Read a corpus for a question answering model.

    The number of words per passage is at most an eighth of the model's `max_length` tokens. `MAX_PASSAGES` of them
    then leave room for their titles and the question (English has about 1.4 tokens per word, names have more).

    Args:
        path: corpus file, see `Retriever.from_file`.
        task: `task.json` of the model.

    Raises:
        UserError: the model does not write answers, or the corpus cannot be read.
    """
    if task["task"] != "qa" or task["columns"]["options"]:
        what = "chooses among options" if task["task"] == "qa" else f"is of task {task['task']}"
        raise UserError(f"`corpus_file` needs a model that writes answers, and `model` {what}: drop `corpus_file`.")
    return Retriever.from_file(path, max(1, min(PASSAGE_WORDS, task["max_length"] // 8)))


def cut_passages(text: str, passage_words: int = PASSAGE_WORDS) -> list[str]:
    """Split a text into passages of whole sentences with at most `passage_words` words; longer sentences are split.

    Whitespace is collapsed to single spaces.
    """
    passages, length = [""], 0
    for match in SENTENCE.finditer(text):
        words = word_pieces(match[0].strip())
        if length + len(words) > passage_words and length:
            passages.append("")
            length = 0
        for start in range(0, len(words), passage_words):
            if start:
                passages.append("")
                length = 0
            gap = "" if passages[-1].endswith(("。", "！", "？")) else " "  # Chinese and Japanese have no spaces
            passages[-1] += gap + "".join(words[start : start + passage_words])
            length += len(words[start : start + passage_words])
    return [" ".join(passage.split()) for passage in passages if passage]


def build_question(
    question: str, passages: Sequence[Passage], fits: Callable[[str], bool]
) -> tuple[str, list[Passage]]:
    """Put passages, numbered from 1 and with their source, in front of a question.

    Args:
        question: question of the user.
        passages: passages, best first.
        fits: returns whether a text fits the model's input; a longer prompt would lose its beginning.

    Returns:
        The text of the prompt and the passages in it: as many of the first ones as fit, possibly none.
    """
    text, shown = question, []
    for number in range(1, len(passages) + 1):
        listed = "\n\n".join(f"[{i}] {headed(p)}" for i, p in enumerate(passages[:number], 1))
        longer = PROMPT.format(passages=listed, question=question)
        if not fits(longer):
            break
        text, shown = longer, list(passages[:number])
    return text, shown


def add_passages(
    rows: Sequence[Mapping[str, Any]],
    retriever: Retriever,
    k: int,
    tokenizer: PreTrainedTokenizerBase,
    task: Mapping[str, Any],
) -> tuple[list[dict[str, Any]], list[list[Passage]]]:
    """Put up to `k` passages in front of the question of each row. They take the place of examples (`utils.examples`).

    Args:
        rows: rows with the columns of the training data.
        retriever: retriever of the corpus.
        k: maximum passages per question.
        tokenizer, task: of the model; prompts stay within the `max_length` tokens of the task.

    Returns:
        The rows with their new questions, and the passages in each.
    """
    column = task["columns"]["question"]
    new_rows, shown = [], []
    for row in rows:
        fits = partial(_fits, row=row, tokenizer=tokenizer, task=task)
        question = str(row[column])  # a file may hold numbers
        text, passages = build_question(question, retriever.search(question, k), fits)
        new_rows.append({**row, column: text, COLUMN: ""} if passages else {**row, column: text})
        shown.append(passages)
    return new_rows, shown


def _fits(text: str, row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, task: Mapping[str, Any]) -> bool:
    prompt = build_prompt(tokenizer, task, {**row, task["columns"]["question"]: text, COLUMN: ""})
    return len(tokenize_pairs(tokenizer, [prompt], None, task["chat"])[0][0]) < task["max_length"]


def search_terms(text: str) -> list[str]:
    """Return the stems of the words of a text without stop words."""
    return [word.stem for word in split_words(text) if word.lower not in STOP_WORDS]


def headed(passage: Passage) -> str:
    """Return the text of a passage after its title and source."""
    head = passage.title + (f" ({passage.source})" if passage.source else "")
    return f"{head.strip()}: {passage.text}" if head else passage.text
