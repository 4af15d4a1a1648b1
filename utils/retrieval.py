"""Passages of a user's own texts for a question, in the prompt with their source, and cited in the answer.

BM25 (Robertson et al. 1994) by bm25s (Lu 2024): words and how rare they are, no model, nothing to train, nothing that
leaves the machine. What an answer says is then held against the passages sentence by sentence, and the citations that
it shows are the ones found so, not the ones that the model wrote ("post-hoc", Gao et al. 2023, arXiv:2305.14627): a
small model writes none (SmolLM2-135M in 50 answers, benchmarks/retrieval.py).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import bm25s
import numpy as np
from bm25s.stopwords import STOPWORDS_EN_PLUS
from transformers import PreTrainedTokenizerBase

from utils.arguments import UserError
from utils.data.files import read_rows
from utils.factuality import find_hallucinations
from utils.factuality.assertions import SENTENCE
from utils.factuality.words import split_words
from utils.prompts import build_prompt, tokenize_pairs

# Words without content. Not the single letters of bm25s's list (of "I'd", "it's"), but those that are words: vitamin D
STOP_WORDS = {word for word in STOPWORDS_EN_PLUS if len(word) > 1} | {"a", "i"}
PASSAGE_WORDS = 150  # longest passage; 75 and 300 are compared with it in benchmarks/retrieval.py
# Of a sentence's distinct words, how many a passage has to hold to support it (benchmarks/retrieval.py)
MIN_OVERLAP = 0.7
MOST_PASSAGES = 3  # in a prompt
CITATION = re.compile(r"\s*\[(\d+(?:\s*[,;]\s*\d+)*)\]")
NO_SUPPORT = "no passage supports this"
MARK = re.compile(rf" \[(?:\d+|{NO_SUPPORT})\]")  # what `cite` writes
PROMPT = (
    "{passages}\n\nAnswer from these passages alone and cite them by number, like [1]. If none of them holds the "
    f"answer, say: {NO_SUPPORT}.\n\n{{question}}"
)


class Passage(NamedTuple):
    """A part of a document of the corpus; `score` is BM25's for the question that found it, above 0, without a top."""

    id: str
    title: str
    source: str
    text: str
    score: float = 0.0


class Claim(NamedTuple):
    """A sentence of an answer: its place, the passages that it cites (from 1), the one that supports it (None: none
    does), and the largest share of its words that a passage holds."""

    start: int
    end: int
    cited: tuple[int, ...]
    passage: int | None
    overlap: float


class Retriever:
    """The passages of a corpus, ready for many questions.

    Example:
        >>> Retriever.from_file("leaflets.csv").search("What helps against hay fever?", k=3)
    """

    def __init__(self, passages: Sequence[Passage]) -> None:
        self.passages = list(passages)
        self.index = bm25s.BM25()  # k1 1.5, b 0.75, Lucene's idf
        self.index.index([_terms(f"{p.title} {p.text}") for p in self.passages], show_progress=False)

    @classmethod
    def from_file(cls, path: str | Path, passage_words: int = PASSAGE_WORDS) -> "Retriever":
        """Read a corpus and cut its texts into passages.

        Args:
            path: a file as `utils.files.read_rows` takes it, with the column `text`, and `id`, `title`, `source` where
                the corpus has them. Without an id a row is known by its number.
            passage_words: longest passage.

        Raises:
            UserError: there is no such file, no column `text`, or an empty text.
        """
        passages = []
        for number, row in read_rows(path):
            if "text" not in row:
                raise UserError(f"`text` is no column of {path}, row {number}: it has {', '.join(row)}.")
            if not _terms(str(row["text"] or "")):
                raise UserError(f"{path}, row {number}: `text` has no words: fill or delete the row.")
            known = {key: str(row.get(key) or "") for key in ("id", "title", "source")}
            known["id"] = known["id"] or str(number)
            passages += [Passage(text=text, **known) for text in cut_passages(str(row["text"]), passage_words)]
        return cls(passages)

    def search(self, question: str, k: int = 3) -> list[Passage]:
        """Return up to `k` passages that share words with a question, the best first; equal ones in their order."""
        terms = self.index.get_tokens_ids(_terms(question))
        if not terms:
            return []
        scores = self.index.get_scores_from_ids(terms)
        best = np.argsort(-scores, kind="stable")[:k].tolist()
        return [self.passages[i]._replace(score=float(scores[i])) for i in best if scores[i] > 0]


def read_corpus(path: str | Path, task: Mapping[str, Any]) -> Retriever:
    """Read a corpus for a model that answers questions.

    Its passages are as short as the model's input asks for. With as many words as an eighth of its tokens,
    `MOST_PASSAGES` leave room for their titles and a question (English has about 1.4 tokens a word, names more).

    Raises:
        UserError: the model answers no questions, or chooses among options; or as `Retriever.from_file`.
    """
    if task["task"] != "qa" or task["columns"]["options"]:
        what = "chooses among options" if task["task"] == "qa" else f"is of task {task['task']}"
        raise UserError(f"`corpus_file` is for models that write answers, and `model` {what}: leave it out.")
    return Retriever.from_file(path, max(1, min(PASSAGE_WORDS, task["max_length"] // 8)))


def cut_passages(text: str, passage_words: int = PASSAGE_WORDS) -> list[str]:
    """Cut a text into passages of whole sentences, each of at most `passage_words` words; a longer sentence is cut.

    White space becomes single spaces.
    """
    passages: list[list[str]] = [[]]
    for match in SENTENCE.finditer(text):
        words = match[0].split()
        if len(passages[-1]) + len(words) > passage_words and passages[-1]:
            passages.append([])
        for start in range(0, len(words), passage_words):
            if start:
                passages.append([])
            passages[-1] += words[start : start + passage_words]
    return [" ".join(words) for words in passages if words]


def build_question(
    question: str, passages: Sequence[Passage], fits: Callable[[str], bool]
) -> tuple[str, list[Passage]]:
    """Put passages, numbered from 1 and with their source, in front of a question.

    Args:
        question: as the user asked it.
        passages: the best first.
        fits: whether a text leaves room in the model's input; a prompt that is too long would lose its beginning.

    Returns:
        the text to ask the model, and the passages in it: as many of the first as fit. The question alone without any.
    """
    text, shown = question, []
    for number in range(1, len(passages) + 1):
        listed = "\n\n".join(f"[{i}] {_headed(p)}" for i, p in enumerate(passages[:number], 1))
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
    """Put up to `k` passages in front of the question of each row.

    Args:
        rows: with the columns of the training.
        retriever: of the corpus.
        k: most passages a question.
        tokenizer, task: of the model that is asked; a prompt stays within the task's `max_length` tokens.

    Returns:
        the rows with their new questions, and the passages in each.
    """
    column = task["columns"]["question"]
    new_rows, shown = [], []
    for row in rows:
        fits = partial(_fits, row=row, tokenizer=tokenizer, task=task)
        question = str(row[column])  # a file may hold numbers
        text, passages = build_question(question, retriever.search(question, k), fits)
        new_rows.append({**row, column: text})
        shown.append(passages)
    return new_rows, shown


def find_support(answer: str, passages: Sequence[Passage]) -> tuple[str, list[Claim]]:
    """Find which passage supports each sentence of an answer.

    A passage supports a sentence if it holds at least `MIN_OVERLAP` of its words (stems, lay words and clinical words
    of one meaning alike), those of the passage's title left out, since they are the topic and claim nothing; and if
    `utils.factuality.find_hallucinations` finds nothing in the sentence that the passage lacks: number, drug, finding,
    negation, side. A cited passage goes before others. That the words stand in another relation there is not seen.

    Args:
        answer: with or without citations such as [1] or [1, 2].
        passages: those that the model was shown, in that order.

    Returns:
        the answer without its citations, and a claim for each sentence in it that has words and is no question.
    """
    plain, cited, last = "", [], 0
    for match in CITATION.finditer(answer):
        plain += answer[last : match.start()]
        cited += [(len(plain), int(number)) for number in re.findall(r"\d+", match[1])]
        last = match.end()
    plain += answer[last:]
    known = [(set(_terms(passage.title)), set(_terms(passage.text))) for passage in passages]
    claims = []
    for match in SENTENCE.finditer(plain):
        words = set(_terms(match[0]))
        if not words or match[0].rstrip().endswith("?") or match[0].strip(" .").lower() == NO_SUPPORT:
            continue
        own = tuple(number for place, number in cited if match.start() < place <= match.end())
        wanted = [words - title or words for title, _ in known]
        shares = [len(own & terms) / len(own) for own, (_, terms) in zip(wanted, known, strict=True)]
        enough = [i for i, share in enumerate(shares) if share >= MIN_OVERLAP]
        enough.sort(key=lambda i: (i + 1 not in own, -shares[i]))
        support = next((i + 1 for i in enough if not find_hallucinations(_headed(passages[i]), match[0])), None)
        start = match.end() - len(match[0].lstrip())
        claims.append(Claim(start, match.end(), own, support, max(shares, default=0.0)))
    return plain, claims


def cite(answer: str, passages: Sequence[Passage]) -> dict[str, Any]:
    """Give each sentence of an answer the passage that supports it, in place of what the model cited.

    Returns:
        `prediction`, where a sentence ends in [1] or in [no passage supports this]; `supported`, the share of its
        sentences that a passage supports, None where it claims nothing; `wrong_citations`, how many of the model's own
        named a passage that does not support the sentence; `passages`, as dicts, each with its `number` and whether it
        is `cited`.
    """
    plain, claims = find_support(answer, passages)
    cited = {claim.passage for claim in claims}
    for claim in reversed(claims):
        mark = f" [{claim.passage or NO_SUPPORT}]"
        end = claim.start + len(plain[claim.start : claim.end].rstrip(" .?!"))
        plain = plain[:end] + mark + plain[end:]
    return {
        "prediction": plain.strip(),
        "supported": sum(claim.passage is not None for claim in claims) / len(claims) if claims else None,
        "wrong_citations": sum(number != claim.passage for claim in claims for number in claim.cited),
        "passages": [{"number": n, "cited": n in cited, **p._asdict()} for n, p in enumerate(passages, start=1)],
    }


def blank_citations(answer: str) -> str:
    """An answer of `cite` with spaces in place of its citations: every other character keeps its place, and what reads
    the answer for its meaning does not take the "no" of [no passage supports this] for a negation."""
    return MARK.sub(lambda match: " " * len(match[0]), answer)


def _fits(text: str, row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, task: Mapping[str, Any]) -> bool:
    prompt = build_prompt(tokenizer, task, {**row, task["columns"]["question"]: text})
    return len(tokenize_pairs(tokenizer, [prompt], None, task["chat"])[0][0]) < task["max_length"]


def _terms(text: str) -> list[str]:
    return [word.stem for word in split_words(text) if word.lower not in STOP_WORDS]


def _headed(passage: Passage) -> str:
    head = passage.title + (f" ({passage.source})" if passage.source else "")
    return f"{head.strip()}: {passage.text}" if head else passage.text
