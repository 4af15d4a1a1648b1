import json
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, precision_recall_fscore_support

from utils.arguments import UserError
from utils.metrics.intervals import evaluate_statistics
from utils.metrics.statistics import (
    ROUGE_TYPES,
    classification_statistics,
    loss_statistics,
    reduce_sums,
    text_statistics,
)

ROOT = Path(__file__).parents[2]
MTS_DIALOG = ROOT.parent / "shared/data/mts_dialog"


def random_texts(n_rows: int, seed: int, marks: str = "") -> list[str]:
    rng = random.Random(seed)
    words = ["pain", "fever", "the", "of", "5", "0.5 mg", "no", "drug-induced", *marks]
    return [" ".join(rng.choices(words, k=rng.randint(0, 25))) for _ in range(n_rows)]


def row_counts(n_rows: int, seed: int) -> np.ndarray:
    """How often each row is drawn in 20 resamples."""
    return np.random.default_rng(seed).multinomial(n_rows, np.full(n_rows, 1 / n_rows), 20)


def corpus_bleu(predictions: list[str], references: list[str]) -> float:
    return sacrebleu.corpus_bleu(predictions, [references]).score / 100


def value(statistics: dict[str, np.ndarray], name: str) -> float:
    return float(reduce_sums(name, statistics[name].sum(axis=0)))


@pytest.mark.real_data
@pytest.mark.skipif(not MTS_DIALOG.is_dir(), reason="shared data is absent")
def test_rouge_equals_the_published_scores_of_mts_dialog():
    predictions = pd.read_csv(MTS_DIALOG / "flan_t5_base_predictions.csv")
    references = pd.read_csv(MTS_DIALOG / "validation.csv")
    predictions["ID"] = predictions["TestID"].str.removeprefix("taskA").astype(int)
    rows = predictions.merge(references, on="ID", validate="one_to_one")
    assert len(rows) == 100
    statistics = text_statistics(rows["SystemOutput2"].tolist(), rows["section_text"].tolist())
    published = json.loads((MTS_DIALOG / "flan_t5_base_scores.json").read_text())["all"]
    for name in ROUGE_TYPES:
        assert value(statistics, name) == pytest.approx(published[name], abs=1e-4)
    assert published["rougeL"] == pytest.approx(0.3342660160184128)


def test_perplexity_is_the_exponential_of_the_loss_a_token():
    statistics = loss_statistics([10.165, 2 * 10.165], [10, 20])
    assert value(statistics, "loss") == pytest.approx(1.0165)
    assert value(statistics, "perplexity") == pytest.approx(2.7635, abs=1e-4)


@pytest.mark.parametrize("marks", ["", "\n"])
@pytest.mark.parametrize("use_stemmer", [False, True])
def test_rouge_equals_rouge_score_with_and_without_line_breaks(marks, use_stemmer):
    predictions, references = random_texts(40, 1, marks), random_texts(40, 2, marks)
    statistics = text_statistics(predictions, references, use_stemmer)
    scorer = RougeScorer(list(ROUGE_TYPES), use_stemmer)
    for i, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
        for name, score in scorer.score(reference, prediction).items():
            assert statistics[name][i, 0] == score.fmeasure


def test_stemming_is_off_by_default():
    assert value(text_statistics(["treated patients"], ["treating patient"]), "rouge1") == 0
    assert value(text_statistics(["treated patients"], ["treating patient"], True), "rouge1") == 1


@pytest.mark.parametrize("n_rows", [1, 2, 60])
def test_bleu_of_resampled_sums_equals_sacrebleu_on_the_repeated_rows(n_rows):
    predictions, references = random_texts(n_rows, 3), random_texts(n_rows, 4)
    statistic = text_statistics(predictions, references)["bleu"]
    weights = row_counts(n_rows, 0)
    scores = reduce_sums("bleu", weights @ statistic)
    for counts, score in zip(weights.astype(int), scores, strict=True):
        rows = np.repeat(np.arange(n_rows), counts)
        repeated = corpus_bleu([predictions[i] for i in rows], [references[i] for i in rows])
        assert score == pytest.approx(repeated, abs=1e-12)


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [
        ("a b c d e f", "a b c d e f"),
        ("a b", "a b"),  # no 4-grams: 0
        ("a b x c d e", "a b c x e d"),  # smoothing of two orders
        ("a x y z", "a b c d e f g h"),  # smoothing and brevity
        ("x y z w", "a b c d"),
        ("", "a b c d"),
        ("Take 0.5 mg, twice.", "Take 0.5 mg, twice a day."),
    ],
)
def test_bleu_equals_sacrebleu_where_orders_are_missing(prediction, reference):
    statistics = text_statistics([prediction], [reference])
    assert value(statistics, "bleu") == pytest.approx(corpus_bleu([prediction], [reference]), abs=1e-12)


def test_an_empty_prediction_scores_zero_everywhere():
    statistics = text_statistics([""], ["back pain for two days"])
    assert {name: value(statistics, name) for name in statistics} == dict.fromkeys(statistics, 0.0)


def test_length_ratio_is_of_all_words_and_repetition_counts_only_repeats():
    statistics = text_statistics(["a b c d", "a b a b a b a b"], ["a b", "a b c d"])
    assert value(statistics, "length_ratio") == pytest.approx(12 / 6)
    assert statistics["repetition"][:, 0].tolist() == [0.0, pytest.approx(3 / 5)]  # abab baba of five 4-grams
    assert text_statistics(["!!!!!!!!"], ["a"])["repetition"][0, 0] == pytest.approx(4 / 5)


@pytest.mark.parametrize("n_classes", [2, 7])
def test_f1_equals_scikit_learn_also_in_every_resample(n_classes):
    rng = np.random.default_rng(n_classes)
    references, predictions = rng.integers(n_classes, size=(2, 40))
    labels = range(n_classes + 3)  # three classes occur nowhere
    statistics = classification_statistics(predictions.tolist(), references.tolist(), labels)
    weights = np.concatenate([np.ones((1, 40)), row_counts(40, 1)])
    for counts in weights.astype(int):
        y, p = np.repeat(references, counts), np.repeat(predictions, counts)
        sums = {name: counts @ statistic for name, statistic in statistics.items()}
        assert reduce_sums("accuracy", sums["accuracy"]) == pytest.approx(accuracy_score(y, p))
        assert reduce_sums("macro_f1", sums["macro_f1"]) == pytest.approx(f1_score(y, p, average="macro"))
        weighted = f1_score(y, p, average="weighted")
        assert reduce_sums("weighted_f1", sums["weighted_f1"]) == pytest.approx(weighted)
        for average in ("macro", "weighted"):
            precision, recall, *_ = precision_recall_fscore_support(y, p, average=average, zero_division=0)
            name = f"{average}_precision"
            assert reduce_sums(name, sums[name]) == pytest.approx(precision)
            assert average == "weighted" or reduce_sums("macro_recall", sums["macro_recall"]) == pytest.approx(recall)
        assert reduce_sums("matthews", sums["matthews"]) == pytest.approx(matthews_corrcoef(y, p))


def test_the_f1_of_a_group_is_the_mean_of_its_own_classes():
    references, predictions = list("aaabbcd"), list("aabbbcc")
    groups = {"many_shot": ["a", "b"], "few_shot": ["d", "z"], "none": ["z"]}
    statistics = classification_statistics(predictions, references, list("abcdz"), groups)
    scores = dict(zip("abcd", f1_score(references, predictions, average=None, zero_division=0), strict=True))
    assert value(statistics, "many_shot_macro_f1") == pytest.approx((scores["a"] + scores["b"]) / 2)
    assert value(statistics, "few_shot_macro_f1") == scores["d"] == 0
    assert "none_macro_f1" not in statistics


def test_the_interval_of_a_macro_mean_over_many_rare_classes_holds_its_value():
    rng = np.random.default_rng(8)
    references = np.repeat(np.arange(200), 3)
    predictions = np.where(rng.random(600) < 0.5, references, rng.integers(200, size=600))
    statistics = classification_statistics(predictions, references, range(200))
    result = evaluate_statistics(statistics, range(600))
    for name in ("macro_f1", "macro_precision", "macro_recall"):
        low, high = result[f"{name}_ci95"]
        assert low < result[name] < high and 0.03 < high - low < 0.15


def test_thousands_of_classes_need_little_memory():
    references = list(range(5000))
    statistics = classification_statistics(references, references, range(10000))
    assert statistics["macro_f1"].shape == (5000, 15000) and statistics["macro_f1"].nnz == 15000
    assert evaluate_statistics(statistics, range(5000))["macro_f1"] == 1


def test_a_prediction_outside_the_labels_is_wrong_and_no_class_of_its_own():
    references, predictions = ["a", "a", "b", "b"], ["a", "none of them", "b", "a"]
    statistics = classification_statistics(predictions, references, ["a", "b", "c"])
    with_labels = f1_score(references, predictions, labels=["a", "b"], average="macro")
    assert value(statistics, "macro_f1") == pytest.approx(with_labels)
    assert value(statistics, "accuracy") == 0.5


def test_a_reference_outside_the_labels_is_refused():
    with pytest.raises(UserError, match=r"1 labels are not among the 1 known labels: \['b'\]"):
        classification_statistics(["a", "a"], ["a", "b"], ["a"])
