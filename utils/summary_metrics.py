"""Row statistics of summaries, for `utils.metrics`, and what a model has to beat.

No number here sees an invented dose: `utils.factuality` looks for that.
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from sacrebleu.metrics.helpers import extract_all_char_ngrams

from utils.metrics import text_statistics

LONGEST_NGRAM = 4
CHRF_ORDER = 6


def summary_statistics(
    predictions: Sequence[str],
    references: Sequence[str],
    sources: Sequence[str] | None = None,
    use_stemmer: bool = False,
) -> dict[str, np.ndarray]:
    """Row statistics of summaries.

    Args:
        predictions, references: one summary a row.
        sources: what was summarized; without it `compression` and the novel n-grams are left out.
        use_stemmer: Porter stemming in ROUGE.

    Returns:
        all of `text_statistics`.
        chrf: corpus chrF in 0..1 (Popovic 2015): sacrebleu's default (characters, order 6, beta 2) / 100.
        compression: words of all sources / words of all summaries (Grusky et al. 2018), split at white space.
        novel_1gram .. novel_4gram: share of the n-grams of all summaries that do not stand in their source (See et
            al. 2017), of words in lower case. No direction is better: the share of the references is the measure.
    """
    statistics = text_statistics(predictions, references, use_stemmer)
    statistics["chrf"] = np.array(
        [_chrf_counts(p, r) for p, r in zip(predictions, references, strict=True)], dtype=float
    )
    return statistics if sources is None else statistics | source_statistics(predictions, sources)


def source_statistics(summaries: Sequence[str], sources: Sequence[str]) -> dict[str, np.ndarray]:
    """compression and novel_1gram .. novel_4gram of `summary_statistics`, also of references."""
    lengths = [(len(source.split()), len(text.split())) for text, source in zip(summaries, sources, strict=True)]
    novel = np.zeros((len(summaries), LONGEST_NGRAM, 2))
    for row, (text, source) in enumerate(zip(summaries, sources, strict=True)):
        words, source_words = _words(text), _words(source)
        for n in range(1, LONGEST_NGRAM + 1):
            grams, known = _ngrams(words, n), set(_ngrams(source_words, n))
            novel[row, n - 1] = sum(gram not in known for gram in grams), len(grams)
    names = [f"novel_{n}gram" for n in range(1, LONGEST_NGRAM + 1)]
    return {
        "compression": np.array(lengths, dtype=float),
        **{name: novel[:, i] for i, name in enumerate(names)},
    }


def summary_baselines(sources: Sequence[str], references_of_train: Sequence[str]) -> dict[str, list[str]]:
    """Summaries that need no model.

    Returns:
        lead: the first words of each source, as many as a training summary has on average (at least one).
        copy: the whole source.
    """
    words = max(1, round(float(np.mean([len(text.split()) for text in references_of_train]))))
    lead = re.compile(rf"\s*(?:\S+\s+){{0,{words - 1}}}\S+")  # the line breaks between the words stay
    found = [lead.match(source) for source in sources]
    return {"lead": [match.group() if match else "" for match in found], "copy": list(sources)}


def _chrf_counts(prediction: str, reference: str) -> list[int]:
    """Character n-grams of the prediction (0 where the reference is too short to have any), of the reference, and
    common ones, for n of 1 to 6: as sacrebleu counts them."""
    counts = []
    pairs = zip(*(extract_all_char_ngrams(text, CHRF_ORDER) for text in (prediction, reference)), strict=True)
    for ours, theirs in pairs:
        counts += [ours.total() if theirs else 0, theirs.total(), _common(ours, theirs)]
    return counts


def _common(a: Counter, b: Counter) -> int:
    return sum(min(count, b[gram]) for gram, count in a.items() if gram in b)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _ngrams(words: list[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[i:] for i in range(n)), strict=False))
