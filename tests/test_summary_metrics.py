import random

import numpy as np
import pytest
import sacrebleu

from utils import metrics
from utils.summary_metrics import summary_baselines, summary_statistics

WORDS = ["pain", "fever", "the", "of", "5", "0.5 mg", "no", "drug-induced", "é", "\n", "I"]


def random_texts(n_rows: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.choice([0, 1, 2, 20]))) for _ in range(n_rows)]


def corpus_chrf(predictions: list[str], references: list[str]) -> float:
    return sacrebleu.corpus_chrf(predictions, [references]).score / 100


def value(statistics: dict[str, np.ndarray], name: str) -> float:
    return float(metrics.reduce_sums(name, statistics[name].sum(axis=0)))


@pytest.mark.parametrize("n_rows", [1, 2, 60])
def test_chrf_of_resampled_sums_equals_sacrebleu_on_the_repeated_rows(n_rows):
    predictions, references = random_texts(n_rows, 3), random_texts(n_rows, 4)
    statistic = summary_statistics(predictions, references)["chrf"]
    weights = metrics.resampling_weights(n_rows, seed=0, n_resamples=20)
    scores = metrics.reduce_sums("test_chrf", weights @ statistic)
    for counts, score in zip(weights.astype(int), scores, strict=True):
        rows = np.repeat(np.arange(n_rows), counts)
        repeated = corpus_chrf([predictions[i] for i in rows], [references[i] for i in rows])
        assert score == pytest.approx(repeated, abs=1e-9)
    assert n_rows == 1 or (scores > 0).all()


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [("", "no pain"), ("no pain", ""), ("a", "a"), ("a", "abcdefgh"), ("abcdefgh", "a"), ("x", "y"), ("No", "no.")],
)
def test_chrf_equals_sacrebleu_where_orders_are_missing(prediction, reference):
    score = value(summary_statistics([prediction], [reference]), "chrf")
    assert score == pytest.approx(corpus_chrf([prediction], [reference]), abs=1e-9)


def test_compression_and_novel_ngrams_count_the_words_of_all_rows():
    sources = ["Doctor: Any pain? Patient: No pain at all.", "I am 40."]
    statistics = summary_statistics(["No pain. NO PAIN at night", ""], ["a", "b"], sources)
    assert value(statistics, "compression") == pytest.approx(11 / 6)
    assert value(statistics, "novel_1gram") == pytest.approx(1 / 6)  # night
    assert value(statistics, "novel_2gram") == pytest.approx(2 / 5)  # pain no, at night
    assert value(statistics, "novel_3gram") == pytest.approx(3 / 4)  # all but: no pain at
    assert value(statistics, "novel_4gram") == 1
    assert "compression" not in summary_statistics(["a"], ["a"])


def test_a_copy_has_no_novel_ngrams_and_another_language_has_only_new_ones():
    sources = ["Le patient a de la fièvre.", "Schmerzen im linken Knie"]
    copied, other = summary_statistics(sources, sources, sources), summary_statistics(sources[::-1], sources, sources)
    for n in range(1, 5):
        assert value(copied, f"novel_{n}gram") == 0 and value(other, f"novel_{n}gram") == 1
    assert value(copied, "compression") == value(copied, "chrf") == 1


def test_the_lead_is_as_long_as_training_summaries_on_average_and_keeps_line_breaks():
    sources = ["  Doctor: Any pain?\nPatient: No.", "one", "", "a b c d e f"]
    baselines = summary_baselines(sources, ["a b c d e", "a b c"])
    assert baselines == {"lead": ["  Doctor: Any pain?\nPatient:", "one", "", "a b c d"], "copy": sources}
    assert summary_baselines(["a b"], [""])["lead"] == ["a"]
