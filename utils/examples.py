"""Examples in the prompt: the training questions most like a question, with their answers, so that the model sees how
such questions are answered (Liu et al. 2022, arXiv:2101.06804).

Training rows are private. They stay in `_private/`, which no push sends; whoever serves the model from the Hub gives
examples of their own.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import DatasetDict
from sklearn.feature_extraction.text import TfidfVectorizer
from transformers import PreTrainedTokenizerBase

from utils.arguments import UserError
from utils.json_files import write_text
from utils.words import tfidf_words

COLUMN = "_examples"  # of a row: the text that {examples} stands for
FILE = Path("_private") / "examples.jsonl"
MOST_COMMON = 5_000  # a word in more questions tells them hardly apart, and makes the search quadratic
CHUNK = 256  # questions at once: with `MOST_COMMON` at most some ten million similarities in memory


def check_examples(number: int, prompt_template: str | None, options_column: list[str] | None) -> None:
    """Raise a UserError if `retrieve_examples` does not go with other keys."""
    if number and options_column:
        raise UserError("`retrieve_examples` shows written answers: drop it, or `options_column`.")
    if prompt_template and bool(number) != ("{examples}" in prompt_template):
        raise UserError("`retrieve_examples` and {examples} in `prompt_template` go together: give both or neither.")


class Examples:
    """Questions with their answers, searched by the cosine of TF-IDF over words and word pairs."""

    def __init__(
        self, questions: Sequence[str], answers: Sequence[str], clusters: Sequence[int] | None = None
    ) -> None:
        self.questions, self.answers = list(questions), list(answers)
        self.clusters = None if clusters is None else np.asarray(clusters)
        self.vectorizer = TfidfVectorizer(
            tokenizer=tfidf_words, token_pattern=None, sublinear_tf=True, ngram_range=(1, 2), max_df=MOST_COMMON,
            dtype=np.float32,
        )  # fmt: skip
        try:
            self.index = self.vectorizer.fit_transform(self.questions).T.tocsr()
        except ValueError as error:  # no words, or only common ones
            raise UserError(f"no examples can be found: {str(error).split(';')[0]}.") from error

    def save(self, output_dir: Path) -> None:
        """Write the examples to the private part of a run."""
        lines = (
            json.dumps({"question": question, "answer": answer}, ensure_ascii=False)
            for question, answer in zip(self.questions, self.answers, strict=True)
        )
        write_text(output_dir / FILE, "".join(f"{line}\n" for line in lines))

    def nearest(self, questions: Sequence[str], k: int, clusters: Sequence[int] | None = None) -> list[list[int]]:
        """Return the numbers of up to `k` examples that share words with each question, most similar first.

        Args:
            questions: any texts.
            k: number of examples.
            clusters: the cluster of each question; examples of the same one are left out. None leaves none out.
        """
        found = []
        for start in range(0, len(questions), CHUNK):
            scores = (self.vectorizer.transform(questions[start : start + CHUNK]) @ self.index).tocsr()
            for row in range(scores.shape[0]):
                own = slice(scores.indptr[row], scores.indptr[row + 1])
                numbers, values = scores.indices[own], scores.data[own]
                if clusters is not None and self.clusters is not None:
                    other = self.clusters[numbers] != clusters[start + row]
                    numbers, values = numbers[other], values[other]
                best = np.lexsort((numbers, -values.round(6)))[:k]  # ties in the order of the examples
                found.append(numbers[best].tolist())
        return found


def example_texts(
    questions: Sequence[str],
    examples: Examples,
    task: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    clusters: Sequence[int] | None = None,
) -> tuple[list[str], dict[str, int]]:
    """Return the examples for each question as text, the most similar one last, next to the question.

    All examples of a question take at most half of `max_length`; one that does not fit is left out.

    Args:
        questions: texts of the users' last turns.
        examples: of the training split.
        task: `retrieve_examples` and `max_length`.
        tokenizer: of the model.
        clusters: see `nearest`.

    Returns:
        the texts, empty without examples, and counts: `rows_without_examples`, `examples_too_long`.
    """
    texts, lengths, counts = [], dict[int, int](), Counter(rows_without_examples=0, examples_too_long=0)
    for numbers in examples.nearest(questions, task["retrieve_examples"], clusters):
        room, shown = task["max_length"] // 2, []
        for number in numbers:
            text = f"{examples.questions[number]}\n{examples.answers[number]}"
            if number not in lengths:
                lengths[number] = len(tokenizer(f"{text}\n\n", add_special_tokens=False)["input_ids"])
            if lengths[number] <= room:
                room -= lengths[number]
                shown.append(text)
            else:
                counts["examples_too_long"] += 1
        counts["rows_without_examples"] += not shown
        texts.append("\n\n".join(reversed(shown)))
    return texts, dict(counts)


def add_examples(
    splits: DatasetDict, task: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase
) -> tuple[DatasetDict, Examples | None, dict[str, int]]:
    """Add the column `COLUMN` to each split if `retrieve_examples` is above 0: training rows of other clusters, since
    the answer to a near-duplicate, or of the same group, would be the answer itself.

    Returns:
        the splits, the examples of the training split, and the counts of `example_texts` as `data_<split>_*`.
    """
    if not task["retrieve_examples"]:
        return splits, None, {}
    train, question = splits["train"], task["columns"]["question"]
    examples = Examples(train[question][:], train[task["columns"]["answer"]][:], train["_cluster"][:])
    added, counts = {}, dict[str, int]()
    for split, rows in splits.items():
        texts, found = example_texts(rows[question][:], examples, task, tokenizer, rows["_cluster"][:])
        added[split] = rows.add_column(COLUMN, texts)
        counts |= {f"data_{split}_{name}": count for name, count in found.items()}
    return DatasetDict(added), examples, counts
