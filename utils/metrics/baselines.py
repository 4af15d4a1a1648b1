"""Baselines that a fine-tuned model has to beat, none of which needs a neural network."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from sklearn.svm import LinearSVC

from utils.data.leaks import best_words
from utils.words import tfidf_words

MOST_FEATURES = 2**20
MOST_COEFFICIENTS = 2**26  # features x classes: 0.5 GB of float64, and as much while it is fitted
MOST_SIMILARITIES = 2**22  # questions x known questions that are compared at once, at most 50 MB


def tfidf(known: Sequence[str], new: Sequence[str], features: int = MOST_FEATURES) -> tuple[csr_matrix, csr_matrix]:
    """Return TF-IDF of words and word pairs, each row of length 1: [known, features] and [new, features].

    Words are hashed, because a vocabulary of word pairs grows with the texts.

    Args:
        known: texts that give the weights.
        new: further texts.
        features: a power of 2.
    """
    options = {"tokenizer": tfidf_words, "token_pattern": None, "ngram_range": (1, 2)}
    hashed = HashingVectorizer(n_features=features, alternate_sign=False, norm=None, **options)
    counts, weigh = hashed.transform(known), TfidfTransformer(sublinear_tf=True)
    weigh.fit(counts)
    # a word that no known text has gets no weight; otherwise the length of 1 would shrink the rest of its row
    weigh.idf_ = np.where(counts.getnnz(axis=0) > 0, weigh.idf_, 0.0)
    return weigh.transform(counts), weigh.transform(hashed.transform(new))


def nearest_answers(known: Sequence[str], answers: Sequence[str], questions: Sequence[str]) -> list[str]:
    """Answer each question like the most similar known question (cosine of `tfidf`), the first of equal ones.

    Args:
        known: questions of the training split.
        answers: their answers.
        questions: questions to answer.
    """
    of_known, of_questions = tfidf(known, questions)
    by_word, step = of_known.T.tocsr(), max(1, MOST_SIMILARITIES // len(known))
    nearest: list[int] = []
    for start in range(0, len(questions), step):
        similarity = of_questions[start : start + step] @ by_word
        nearest += np.asarray(similarity.argmax(axis=1)).ravel().tolist()
    return [answers[i] for i in nearest]


def class_features(n_classes: int) -> int:
    """Return the number of hashed features of a linear model: fewer for many classes, so that its size is bounded."""
    return min(MOST_FEATURES, 2 ** int(np.log2(MOST_COEFFICIENTS / n_classes)))


def classification_baselines(
    texts: Sequence[str], labels: np.ndarray, new_texts: Sequence[str], seed: int
) -> dict[str, np.ndarray]:
    """Predict classes without a neural network.

    Args:
        texts, labels: training rows; labels are int [rows].
        new_texts: texts to classify.
        seed: seed of the random guesses and the solver.

    Returns:
        labels, int [new rows], of `majority`, the most frequent class; `stratified_random`, random guesses in
        proportion to the class frequencies; `one_word`, see `one_word_predictions`; `tfidf_svm`, a linear model on
        `tfidf`, which weights classes by inverse frequency, since it is compared by macro F1, which rare classes
        decide.
    """
    models = {
        "majority": DummyClassifier(strategy="most_frequent"),
        "stratified_random": DummyClassifier(strategy="stratified", random_state=seed),
        "tfidf_svm": LinearSVC(class_weight="balanced", random_state=seed),
    }
    one_word = one_word_predictions(texts, np.asarray(labels), new_texts, int(np.max(labels)) + 1)
    known, new = tfidf(texts, new_texts, class_features(len(np.unique(labels))))
    found = {name: model.fit(known, labels).predict(new) for name, model in models.items()}
    return found | {"one_word": one_word}


def one_word_predictions(
    texts: Sequence[str], labels: np.ndarray, new_texts: Sequence[str], n_classes: int
) -> np.ndarray:
    """Classify by one word per class, as a baseline: the class whose word stands in the text, of several the one with
    the most precise word, of none the most frequent class (after 1R, Holte 1993).

    Args:
        texts, labels: training rows; labels are int [rows].
        new_texts: texts to classify.
        n_classes: number of classes.

    Returns:
        int [new rows].
    """
    words = {label: word for label, word in enumerate(best_words(texts, labels, n_classes)) if word}
    ranked = sorted(words, key=lambda label: (-words[label].precision, -words[label].recall))
    frequent = int(np.bincount(labels, minlength=n_classes).argmax())
    seen = [set(tfidf_words(text.lower())) for text in new_texts]
    return np.array([next((label for label in ranked if words[label].text in own), frequent) for own in seen])
