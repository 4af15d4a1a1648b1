"""Augment the training split, and no other: paraphrase questions or shuffle options (key `augmentation_factor`)."""

import random
import re
from collections.abc import Sequence

from datasets import Dataset

from utils.data.columns import Columns

# (full question, its paraphrases); the first match applies. `\1` is the subject, unchanged.
PARAPHRASES = [
    (r"What are the symptoms of (.+?)\s*\?", ["How does \\1 show itself?", "Which symptoms does \\1 cause?"]),
    (r"What causes (.+?)\s*\?", ["What leads to \\1?", "What are the causes of \\1?"]),
    (r"How to diagnose (.+?)\s*\?", ["How is \\1 diagnosed?", "Which tests show \\1?"]),
    (r"What are the treatments for (.+?)\s*\?", ["How is \\1 treated?", "Which treatments are there for \\1?"]),
    (r"How to prevent (.+?)\s*\?", ["How can \\1 be prevented?", "What protects from \\1?"]),
    (r"What (?:is \(are\)|is|are) (.+?)\s*\?", ["Define \\1.", "Explain what \\1 means.", "What does \\1 mean?"]),
]
FRAMES = ["{} Please answer.", "A medical question: {}", "Please answer this question. {}", "I would like to know: {}"]


def paraphrase(question: str) -> list[str]:
    """Return paraphrases of a question, the closest first. Its subject stays unchanged."""
    for pattern, wordings in PARAPHRASES:
        match = re.fullmatch(pattern, question.strip())
        if match:
            return [match.expand(wording) for wording in wordings] + [frame.format(question) for frame in FRAMES]
    return [frame.format(question) for frame in FRAMES]


def shuffle_options(options: Sequence[str], answer_index: int, rng: random.Random) -> tuple[list[str], int]:
    """Return the options in random order, and the new index of the correct one."""
    order = rng.sample(range(len(options)), len(options))
    return [options[i] for i in order], order.index(answer_index)


def augment(train: Dataset, columns: Columns, factor: int, seed: int) -> Dataset:
    """Return each training row followed by `factor - 1` variants: shuffled options or, without options, a paraphrased
    question.

    Args:
        train: the training split, never another.
        columns: the columns of the rows.
        factor: rows per original row; 1 returns the rows unchanged.
        seed: seed of the shuffling.
    """
    if factor == 1:
        return train

    def variants(batch: dict[str, list], indices: list[int]) -> dict[str, list]:
        rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        out = []
        for index, row in zip(indices, rows, strict=True):
            rng = random.Random(seed * 1_000_003 + index)  # a row's variants are independent of batching
            out.append(row)
            wordings = paraphrase(row[columns.input])
            for copy in range(1, factor):
                if columns.options and columns.index:
                    options, answer = shuffle_options(row[columns.options], row[columns.index], rng)
                    out.append({**row, columns.options: options, columns.index: answer})
                else:
                    out.append({**row, columns.input: wordings[(copy - 1) % len(wordings)]})
        return {name: [row[name] for row in out] for name in batch}

    return train.map(variants, batched=True, with_indices=True, features=train.features, desc="Augmenting")
