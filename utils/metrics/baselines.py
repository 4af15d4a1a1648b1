"""Baselines that a fine-tuned model has to beat, none of which needs a neural network."""

from collections.abc import Sequence

import numpy as np
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.svm import LinearSVC

from utils.data.leaks import one_word_predictions
from utils.words import tfidf_words

# Maximum coefficients of a linear model (classes x features), 1.6 GB in float64; reached with thousands of classes
MAX_COEFFICIENTS = 200_000_000


def nearest_answers(known: Sequence[str], answers: Sequence[str], questions: Sequence[str]) -> list[str]:
    """Answer each question like the most similar known question (cosine of TF-IDF over words and word pairs).

    Args:
        known: questions of the training split.
        answers: their answers.
        questions: questions to answer.
    """
    vectorizer = TfidfVectorizer(tokenizer=tfidf_words, token_pattern=None, sublinear_tf=True, ngram_range=(1, 2))
    index = NearestNeighbors(n_neighbors=1, metric="cosine").fit(vectorizer.fit_transform(known))
    nearest = index.kneighbors(vectorizer.transform(questions), return_distance=False)[:, 0]
    return [answers[i] for i in nearest]


def class_vectorizer(labels: np.ndarray) -> TfidfVectorizer:
    """Return a TF-IDF vectorizer of words and word pairs for linear models, with fewer features for many classes."""
    max_features = MAX_COEFFICIENTS // len(np.unique(labels))
    return TfidfVectorizer(
        tokenizer=tfidf_words, token_pattern=None, sublinear_tf=True, ngram_range=(1, 2), max_features=max_features
    )


def classification_baselines(
    texts: Sequence[str], labels: np.ndarray, new_texts: Sequence[str], seed: int
) -> dict[str, np.ndarray]:
    """Predict classes without a neural network.

    Args:
        texts, labels: training rows; labels are int [rows].
        new_texts: texts to classify.
        seed: seed of the random guesses and the solvers.

    Returns:
        labels, int [new rows], of `majority`, the most frequent class; `stratified_random`, random guesses in
        proportion to the class frequencies; `one_word`, see `one_word_predictions`; `tfidf_svm` and `tfidf_logistic`,
        linear models on TF-IDF of words and word pairs. The linear models weight classes by inverse frequency, since
        they are compared by macro F1, which rare classes decide.
    """
    vectorizer = class_vectorizer(labels)
    models = {
        "majority": DummyClassifier(strategy="most_frequent"),
        "stratified_random": DummyClassifier(strategy="stratified", random_state=seed),
        "tfidf_svm": LinearSVC(class_weight="balanced", random_state=seed),
        "tfidf_logistic": LogisticRegression(C=10, class_weight="balanced", max_iter=1000),
    }
    one_word = one_word_predictions(texts, np.asarray(labels), new_texts, int(np.max(labels)) + 1)
    known, new = vectorizer.fit_transform(texts), vectorizer.transform(new_texts)
    found = {name: model.fit(known, labels).predict(new) for name, model in models.items()}
    return found | {"one_word": one_word}
