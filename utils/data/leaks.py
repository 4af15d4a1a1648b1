"""Find what gives the target away in the input: a class named in its own texts, a word that stands in the texts of one
class alone, an answer that stands in its question. A model learns to copy it, and its scores mean little."""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset
from sklearn.feature_extraction.text import CountVectorizer

from utils.data.columns import Columns
from utils.words import tfidf_words

logger = logging.getLogger(__name__)
MOST_ROWS = 5_000  # looked at
MANY = 0.5  # share of rows with the target, or with the name of their own class, from which it is a leak
TIMES = 3  # and as many times as often as the name of another class
NEARLY_ALWAYS = 0.9  # F1 of a word for its class
FEW_ROWS = 20  # a word that tells fewer rows of a class may do so by chance
MANY_ROWS = 0.2  # share of the rows in classes that one word tells: "diabetes" alone tells a block of ICD-10, too


class Word(NamedTuple):
    """The word that tells a class best: precision and recall for the class, among the rows that have the word."""

    text: str
    precision: float
    recall: float

    @property
    def f1(self) -> float:
        return 2 * self.precision * self.recall / max(self.precision + self.recall, 1e-12)


def best_words(texts: Sequence[str], labels: np.ndarray, n_classes: int) -> list[Word | None]:
    """Return for each class the word with the highest F1 for it; None for a class without rows or words.

    Args:
        texts: texts of the training rows.
        labels: int [rows], below `n_classes`.
        n_classes: number of classes.
    """
    vectorizer = CountVectorizer(tokenizer=tfidf_words, token_pattern=None, binary=True, dtype=np.float32)
    try:
        found = vectorizer.fit_transform(texts)
    except ValueError:  # no words at all
        return [None] * n_classes
    names, with_word = vectorizer.get_feature_names_out(), np.asarray(found.sum(axis=0)).ravel()
    words: list[Word | None] = []
    for label in range(n_classes):
        own = np.flatnonzero(labels == label)
        both = np.asarray(found[own].sum(axis=0)).ravel() if len(own) else np.zeros(1)
        if not both.any():
            words.append(None)
            continue
        best = int((2 * both / (with_word + len(own))).argmax())
        words.append(Word(str(names[best]), float(both[best] / with_word[best]), float(both[best] / len(own))))
    return words


def describe_leaks(train: Dataset, columns: Columns, parents: Sequence[str] = ()) -> dict[str, Any]:
    """Look for the target of each row in its input, and warn about what is found.

    Args:
        train: the training split, with labels as text. Up to `MOST_ROWS` rows are looked at.
        columns: the columns of the data set.
        parents: columns of further labels.

    Returns:
        `data_input_has_target` and, if the rows have a context, `data_context_has_target`, shares of rows; with a
        leak, `data_leaks`, a list of sentences. The target in a context is none: an answer may be meant to be found
        there.
    """
    rows = train.select(range(0, len(train), max(1, len(train) // MOST_ROWS)))
    if columns.label_list:  # a row a label
        targets = {str(columns.label): [label for labels in rows[columns.label] for label in labels]}
        rows = rows.select([i for i, labels in enumerate(rows[columns.label]) for _ in labels])
    elif columns.label:
        targets = {name: rows[name][:] for name in (columns.label, *parents)}
    elif columns.target:
        targets = {columns.target: rows[columns.target][:]}
    else:
        pairs = zip(rows[str(columns.options)], rows[str(columns.index)], strict=True)
        targets = {str(columns.index): [options[right] for options, right in pairs]}
    read = [column for column in (columns.input, *columns.kept) if column not in targets]
    texts = {column: [str(text) for text in rows[column]] for column in read}
    inputs = {column: [plain_words(text) for text in own] for column, own in texts.items()}
    wanted = {name: [plain_words(value) for value in values] for name, values in targets.items()}
    main, leaks = next(iter(targets)), list[str]()
    report: dict[str, Any] = {"data_input_has_target": _share(inputs[columns.input], wanted[main])}
    if columns.optional:
        contexts = [plain_words(text) for text in rows[columns.optional[0]]]
        report["data_context_has_target"] = _share(contexts, wanted[main])
    for name, values in targets.items():
        for column in read:
            parts = columns.parts if column == columns.input else ()
            shown, what = " and ".join(f"`{part}`" for part in parts or (column,)), f"`{name}`"
            named = f"the name of the class ({what})" if columns.label else what
            leaks += find_targets(inputs[column], wanted[name], shown, named)
            if columns.label:
                leaks += find_telling_words(texts[column], inputs[column], values, shown, what)
    for leak in leaks:
        logger.warning("%s: a model that reads this need not read the rest; see `strip_pattern`", leak)
    return report | ({"data_leaks": leaks} if leaks else {})


def find_targets(inputs: Sequence[str], wanted: Sequence[str], column: str, target: str) -> list[str]:
    """Return a sentence if many inputs contain their target, and not as often that of another row.

    Args:
        inputs, wanted: input and target of each row, from `plain_words`.
        column, target: names for the sentence.
    """
    others = [_another(wanted, row) for row in range(len(wanted))]
    share, chance = _share(inputs, wanted), _share(inputs, others)
    if share < MANY or share < TIMES * chance:
        return []
    return [f"{target} stands in {column} in {share:.0%} of the training rows{_place(inputs, wanted)}"]


def find_telling_words(
    texts: Sequence[str], inputs: Sequence[str], targets: Sequence[str], column: str, target: str
) -> list[str]:
    """Return a sentence if single words tell classes almost alone.

    Args:
        texts: one per row.
        inputs: the same from `plain_words`.
        targets: the class of each row.
        column, target: names for the sentence.
    """
    classes, labels = np.unique(targets, return_inverse=True)
    sizes, words = np.bincount(labels), enumerate(best_words(texts, labels, len(classes)))
    telling = {i: word for i, word in words if word and word.f1 >= NEARLY_ALWAYS and sizes[i] >= FEW_ROWS}
    if len(classes) < 2 or sum(sizes[i] for i in telling) < MANY_ROWS * len(labels):
        return []
    at = _place(inputs, [f" {telling[label].text} " if label in telling else "" for label in labels.tolist()])
    shown = ", ".join(f'"{word.text}" for {classes[i]}' for i, word in list(telling.items())[:3])
    more = f" and {len(telling) - 3} more" if len(telling) > 3 else ""
    return [
        f"in {column} one word tells {len(telling)} of the {len(classes)} classes of {target} almost alone{at}: "
        f"{shown}{more}"
    ]


def plain_words(text: str) -> str:
    """Return the words of two or more letters of a text in lower case, with a space around each."""
    return f" {' '.join(tfidf_words(text.lower()))} "


def _share(texts: Sequence[str], targets: Sequence[str]) -> float:
    found = [target in text for text, target in zip(texts, targets, strict=True) if target.strip()]
    return sum(found) / len(found) if found else 0.0


def _another(targets: Sequence[str], row: int) -> str:
    """Return the target of a row after this one that has another; "" if there is none near."""
    others = (targets[(row + offset) % len(targets)] for offset in range(1, 50))
    return next((target for target in others if target != targets[row]), "")


def _place(texts: Sequence[str], targets: Sequence[str]) -> str:
    """Say where in the texts the targets stand, if most stand at one end."""
    pairs = [(text, target) for text, target in zip(texts, targets, strict=True) if target.strip() and target in text]
    places = np.array([text.rfind(target) / max(1, len(text) - len(target)) for text, target in pairs])
    for name, at_end in (("first", places <= 0.1), ("last", places >= 0.9)):
        if len(places) and at_end.mean() >= NEARLY_ALWAYS:
            return f", mostly in the {name} tenth of the text"
    return ""
