"""Combine the logits of an encoder with the class frequencies and a linear model on words.

An encoder on word pieces and a linear model on words and word pairs make different errors. Their sum, weighted on
validation rows, is better than either, and never much worse than the linear model alone, which is hard to beat on few
or long texts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from scipy.special import logsumexp
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from sklearn.svm import LinearSVC

from utils.words import tfidf_words

MOST_FEATURES, MOST_COEFFICIENTS = 2**18, 2**27  # the fit takes 1 GB of float64


def fit_linear(texts: Sequence[str], labels: np.ndarray, n_classes: int, seed: int) -> dict[str, np.ndarray]:
    """Fit a linear SVM on TF-IDF of words and word pairs, with classes weighted by inverse frequency.

    Words are hashed, because a vocabulary would publish the words of the notes with the model.

    Args:
        texts: training texts.
        labels: their classes, int [rows], or with several a row 0 or 1, [rows, classes]; then each class has a model
            of its own, against all others, with unweighted rows.
        n_classes: number of classes; one without rows is never predicted.
        seed: seed of the solver.

    Returns:
        arrays for safetensors: `idf` float32 [features], `coefficients` float16 [classes, features] and `intercept`
        float32 [classes].
    """
    features = min(MOST_FEATURES, 2 ** int(np.log2(MOST_COEFFICIENTS / n_classes)))
    hashed, tfidf = _hash(texts, features), TfidfTransformer(sublinear_tf=True)
    tfidf.fit(hashed)
    # a word that training never saw gets no weight; otherwise normalization would shrink the rest of its row
    tfidf.idf_ = np.where(hashed.getnnz(axis=0) > 0, tfidf.idf_, 0.0)
    rows = tfidf.transform(hashed)
    if labels.ndim == 2:
        return {"idf": tfidf.idf_.astype(np.float32), **_fit_labels(rows, labels, seed)}
    model = LinearSVC(class_weight="balanced", random_state=seed).fit(rows, labels)
    coefficients, intercept = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # one score for both classes
        coefficients, intercept = np.concatenate([-coefficients, coefficients]) / 2, np.array([-1, 1]) * intercept / 2
    arrays = {
        "idf": tfidf.idf_.astype(np.float32),
        "coefficients": np.zeros((n_classes, features), dtype=np.float16),
        "intercept": np.full(n_classes, intercept.min() - 1, dtype=np.float32),
    }
    arrays["coefficients"][model.classes_], arrays["intercept"][model.classes_] = coefficients, intercept
    return arrays


def linear_scores(arrays: Mapping[str, np.ndarray], texts: Sequence[str]) -> np.ndarray:
    """Return the margins of texts, float [rows, classes], from the arrays of `fit_linear`."""
    idf = arrays["idf"].astype(float)
    tfidf = TfidfTransformer(sublinear_tf=True)
    tfidf.idf_ = idf
    rows = tfidf.transform(_hash(texts, len(idf)))
    return rows @ arrays["coefficients"].astype(np.float32).T + arrays["intercept"]


def ensemble_logits(outputs: Mapping[str, Any], task: Mapping[str, Any]) -> np.ndarray:
    """Return logits + prior * log_prior + linear * linear_scores, float [rows, classes].

    Args:
        outputs: `logits` of the encoder and, with a linear model, `linear_scores`, both float [rows, classes].
        task: the content of `task.json`: `log_prior`, float [classes], and the weights `prior` and `linear` in
            `ensemble`.
    """
    mixed = outputs["logits"] + task["ensemble"]["prior"] * np.asarray(task["log_prior"])
    scores = outputs.get("linear_scores")
    return mixed if scores is None else mixed + task["ensemble"]["linear"] * scores


def fit_ensemble(method: str, outputs: Mapping[str, Any], log_prior: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Fit the weights of `ensemble_logits` on validation rows by maximum likelihood (stacking, Wolpert 1992).

    A temperature is fitted along with them and discarded. Likelihood chooses these few weights, because macro F1
    depends on a few rows of rare classes and would choose by chance.

    Args:
        method: "none", "prior", or "linear", which includes the prior.
        outputs: of the validation rows, as for `ensemble_logits`.
        log_prior: log of the class frequencies in training, float [classes]. A positive weight reverses a training
            that made rare classes as likely as frequent ones.
        labels: int [rows].

    Returns:
        `method` and the weights `prior` and `linear`; a weight that the method does not use is 0.
    """
    if method == "none":
        return {"method": method, "prior": 0.0, "linear": 0.0}
    logits, scores = outputs["logits"], outputs.get("linear_scores")
    parts = np.stack([logits, np.broadcast_to(log_prior, logits.shape), *([] if scores is None else [scores])])
    right = parts[:, np.arange(len(labels)), labels]

    def loss(parameters: np.ndarray) -> float:
        weights = np.array([1.0, *parameters[1:]]) * np.exp(parameters[0])
        return float((logsumexp(np.tensordot(weights, parts, axes=1), axis=1) - weights @ right).mean())

    start = [0.0, 0.0, *([] if scores is None else [1.0])]
    bounds = [(-4, 4), (-5, 5), (0, 100)][: len(start)]  # of log scale, prior and linear model
    weights = minimize(loss, start, method="L-BFGS-B", bounds=bounds).x
    linear = 0.0 if scores is None else float(weights[2])
    return {"method": method, "prior": float(weights[1]), "linear": linear}


def _fit_labels(rows: csr_matrix, labels: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Return `coefficients` and `intercept` of `fit_linear` for sets of labels; a label of no or of all rows gets a
    constant score."""
    counts, n_classes = labels.sum(axis=0, dtype=int), labels.shape[1]
    coefficients = np.zeros((n_classes, rows.shape[1]), dtype=np.float16)
    intercept = np.where(counts == len(labels), 2, -2).astype(np.float32)
    for i in np.flatnonzero((counts > 0) & (counts < len(labels))).tolist():
        model = LinearSVC(random_state=seed).fit(rows, labels[:, i])
        coefficients[i], intercept[i] = model.coef_[0], model.intercept_[0]
    return {"coefficients": coefficients, "intercept": intercept}


def _hash(texts: Sequence[str], features: int) -> csr_matrix:
    options = {"tokenizer": tfidf_words, "token_pattern": None, "ngram_range": (1, 2)}
    return HashingVectorizer(n_features=features, alternate_sign=False, norm=None, **options).transform(texts)
