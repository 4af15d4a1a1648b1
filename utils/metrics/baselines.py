"""What a fine-tuned model has to beat: answers that need no neural network."""

from collections.abc import Sequence

import numpy as np
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.svm import LinearSVC

# Coefficients of a linear model, classes x features, in float64: 1.6 GB. A few thousand classes would need more.
MOST_COEFFICIENTS = 200_000_000


def nearest_answers(known: Sequence[str], answers: Sequence[str], questions: Sequence[str]) -> list[str]:
    """Answer each question as the most similar known one was answered (TF-IDF of words and pairs, cosine).

    Args:
        known: questions of the training split.
        answers: their answers.
        questions: what to answer.
    """
    vectorizer = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))
    index = NearestNeighbors(n_neighbors=1, metric="cosine").fit(vectorizer.fit_transform(known))
    nearest = index.kneighbors(vectorizer.transform(questions), return_distance=False)[:, 0]
    return [answers[i] for i in nearest]


def class_vectorizer(labels: np.ndarray) -> TfidfVectorizer:
    """TF-IDF of words and pairs for linear models, with fewer features where there are very many classes."""
    most = MOST_COEFFICIENTS // len(np.unique(labels))
    return TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), max_features=most)


def classification_baselines(
    texts: Sequence[str], labels: np.ndarray, new_texts: Sequence[str], seed: int
) -> dict[str, np.ndarray]:
    """Predict classes without a neural network.

    Args:
        texts, labels: the training rows; labels int [rows].
        new_texts: what to classify.
        seed: of the random guesses and the solvers.

    Returns:
        labels int [new rows] by: `majority`, the most frequent class; `stratified_random`, guesses with the classes'
        shares; `tfidf_svm` and `tfidf_logistic`, linear models on TF-IDF of words and pairs, each class weighted with
        its inverse frequency, since macro F1 is what they are compared in (it wins on the rare classes).
    """
    vectorizer = class_vectorizer(labels)
    models = {
        "majority": DummyClassifier(strategy="most_frequent"),
        "stratified_random": DummyClassifier(strategy="stratified", random_state=seed),
        "tfidf_svm": LinearSVC(class_weight="balanced", random_state=seed),
        "tfidf_logistic": LogisticRegression(C=10, class_weight="balanced", max_iter=1000),
    }
    known, new = vectorizer.fit_transform(texts), vectorizer.transform(new_texts)
    return {name: model.fit(known, labels).predict(new) for name, model in models.items()}
