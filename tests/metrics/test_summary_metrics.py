import random
import re
from pathlib import Path

import numpy as np
import pytest
import sacrebleu
import torch
from conftest import ROOT
from transformers import AutoModel, AutoTokenizer

from utils.arguments import UserError
from utils.metrics.statistics import reduce_sums
from utils.metrics.summaries import bert_scores, bert_statistics, summary_baselines, summary_statistics
from utils.overlap import BERTSCORE_LAYERS, check_bertscore_model

MINILM = ROOT / "quickstart/models/all-minilm-l6-v2"

WORDS = ["pain", "fever", "the", "of", "5", "0.5 mg", "no", "drug-induced", "é", "\n", "I"]


def random_texts(n_rows: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.choice([0, 1, 2, 20]))) for _ in range(n_rows)]


def corpus_chrf(predictions: list[str], references: list[str]) -> float:
    return sacrebleu.corpus_chrf(predictions, [references]).score / 100


def value(statistics: dict[str, np.ndarray], name: str) -> float:
    return float(reduce_sums(name, statistics[name].sum(axis=0)))


@pytest.mark.parametrize("n_rows", [1, 2, 60])
def test_chrf_of_resampled_sums_equals_sacrebleu_on_the_repeated_rows(n_rows):
    predictions, references = random_texts(n_rows, 3), random_texts(n_rows, 4)
    statistic = summary_statistics(predictions, references)["chrf"]
    weights = np.random.default_rng(0).multinomial(n_rows, np.full(n_rows, 1 / n_rows), 20)
    scores = reduce_sums("test_chrf", weights @ statistic)
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
    assert summary_baselines(["患者发热三天，没有咳嗽。"], ["咳嗽三周了。"])["lead"] == ["患者发热三天，"]


# made by the package bert-score 0.3.13, layer 5 of all-MiniLM-L6-v2: precision, recall, F1
PUBLISHED = {
    (" HIV+  ", "H.I.V"): [0.352032, 0.393075, 0.371423],
    ("no", "No."): [0.987058, 0.879140, 0.929978],
    ("chest pain denied", "The patient has no chest pain."): [0.739991, 0.656695, 0.695859],
}


@pytest.mark.skipif(not MINILM.is_dir(), reason="made by `python -m utils.quickstart`")
def test_bertscore_equals_the_package_bert_score():
    predictions, references = zip(*PUBLISHED, strict=True)
    scores = bert_scores(predictions, references, str(MINILM), 5, "cpu", batch_size=2)
    assert scores == pytest.approx(np.array(list(PUBLISHED.values())), abs=2e-6)


def slow_bertscore(prediction: str, reference: str, folder: Path, layer: int) -> list[float]:
    """The definition in Zhang et al. 2020, token by token; [CLS] and [SEP] may be matched but have no weight."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    vectors = []
    for text in (prediction, reference):
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
        vectors.append([vector / vector.norm() for vector in states[layer][0]])
    means = []
    for ours, theirs in (vectors, vectors[::-1]):
        best = [max(float(vector @ other) for other in theirs) for vector in ours[1:-1]]
        means.append(sum(best) / len(best))
    precision, recall = means
    return [precision, recall, 2 * precision * recall / (precision + recall)]


@pytest.mark.parametrize("layer", [1, 2])
def test_bertscore_is_the_greedy_match_of_token_vectors_in_any_batch(tiny_bert, layer):
    rng = random.Random(layer)
    words = ["heart", "murmur", "angina", "fever", "kidney", "stone", "unknown"]
    predictions, references = ([" ".join(rng.choices(words, k=rng.randint(1, 30))) for _ in range(12)] for _ in "ab")
    expected = [slow_bertscore(p, r, tiny_bert, layer) for p, r in zip(predictions, references, strict=True)]
    for batch_size in (1, 5, 64):
        scores = bert_scores(predictions, references, str(tiny_bert), layer, "cpu", batch_size)
        assert scores == pytest.approx(np.array(expected), abs=1e-5)
    swapped = bert_scores(references, predictions, str(tiny_bert), layer, "cpu", 4)
    assert swapped == pytest.approx(np.array(expected)[:, [1, 0, 2]], abs=1e-5)
    statistics = bert_statistics(scores)
    assert value(statistics, "bertscore_f1") == pytest.approx(scores[:, 2].mean())
    assert list(statistics) == ["bertscore_precision", "bertscore_recall", "bertscore_f1"]


def test_bertscore_keeps_the_order_of_more_rows_than_fit_at_once(tiny_bert):
    rng = random.Random(0)
    references = [
        " ".join(rng.choices(["heart", "murmur", "angina", "fever"], k=rng.randint(1, 6))) for _ in range(300)
    ]
    predictions = [text if i % 3 else "" for i, text in enumerate(references)]
    scores = bert_scores(predictions, references, str(tiny_bert), 1, "cpu", 64)
    assert scores == pytest.approx(np.array([[float(i % 3 > 0)] * 3 for i in range(300)]), abs=1e-5)


def test_texts_longer_than_the_model_takes_are_cut(tiny_bert):
    scores = bert_scores(["heart " * 600, "heart"], ["heart " * 510 + "fever " * 90, " "], str(tiny_bert), 1, "cpu", 2)
    assert scores == pytest.approx(np.array([[1, 1, 1], [0, 0, 0]]), abs=1e-5)


def test_the_layer_of_known_models_need_not_be_given(monkeypatch, tiny_bert):
    assert check_bertscore_model(str(tiny_bert), 2) == (2, "tiny-bert layer 2")
    monkeypatch.setitem(BERTSCORE_LAYERS, str(tiny_bert), 1)
    assert check_bertscore_model(str(tiny_bert), None) == (1, "tiny-bert layer 1")


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            None,
            "`bertscore_layer` is None: for .*tiny-bert give 1 to 2; .*microsoft/deberta",
        ),
        (3, "`bertscore_layer` is 3: for .*tiny-bert give 1 to 2; "),
        (-1, "`bertscore_layer` is -1: for .*tiny-bert give 1 to 2; "),
    ],
)
def test_an_unknown_layer_is_refused(tiny_bert, layer, message):
    with pytest.raises(UserError, match=message):
        check_bertscore_model(str(tiny_bert), layer)


def test_what_is_no_encoder_is_refused(tmp_path):
    for text, message in (('{"model_type": "t5"}', "(t5) is not an encoder: "), ("", "cannot be loaded (")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(UserError, match=re.escape(message)) as error:
            check_bertscore_model(str(tmp_path), 1)
        assert "\n" not in str(error.value)
