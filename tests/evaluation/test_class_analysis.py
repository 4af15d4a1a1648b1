import csv
import io
import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from sklearn.metrics import f1_score

from utils.evaluation.calibration import reliability_bins, risk_coverage
from utils.evaluation.class_analysis import (
    ERROR_ADVICE,
    analyse_classes,
    class_error_patterns,
    class_files,
    label_conflicts,
)
from utils.hierarchy import LabelTree
from utils.reporting.class_plots import (
    plot_confusion,
    plot_error_by_length,
    plot_error_by_training_rows,
    plot_reliability,
    plot_risk_coverage,
    plot_tree,
)

PLOTS = (plot_confusion, plot_reliability, plot_risk_coverage, plot_error_by_length, plot_error_by_training_rows)


def synthetic(n: int, rows: int, classes: list[str] | None = None) -> dict:
    """The whole analysis of a classifier that is better at frequent classes and short texts."""
    rng = np.random.default_rng(0)
    shares = 1 / np.arange(1, n + 1)
    train, references = (rng.choice(n, size, p=shares / shares.sum()) for size in (10 * rows, rows))
    words = rng.integers(5, 200, rows)
    logits = rng.normal(size=(rows, n))
    logits[np.arange(rows), references] += 4 - references / n - words / 80
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    predictions, labels = probabilities.argmax(axis=1), classes or [f"class number {i}" for i in range(n)]
    clusters = np.arange(rows)
    counts = np.bincount(train, minlength=n)
    analysis = analyse_classes(references, predictions, probabilities, labels, counts, words, clusters)
    curve = risk_coverage(probabilities.max(axis=1), predictions == references)
    return analysis | {
        "temperature": 1.4,
        "reliability": reliability_bins(probabilities, references, clusters),
        "reliability_uncalibrated": reliability_bins(probabilities**1.4, references, clusters),
        "risk_coverage": curve,
        "abstention": {"max_risk": 0.1} | curve[len(curve) // 2],
    }


@pytest.fixture(scope="module")
def analysis():
    return synthetic(23, 1000)


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved instead of files."""
    saved = []
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, *_, **__: saved.append(figure))
    return saved


def small(**changes) -> dict:
    """Six rows of classes a, b, c; d is never seen, e has a row and is never predicted."""
    values = {
        "references": np.array([0, 0, 0, 1, 1, 2, 4]), "predictions": np.array([0, 0, 1, 1, 2, 2, 2]),
        "probabilities": np.full((7, 5), 0.2), "labels": list("abcde"), "class_counts": np.array([9, 5, 1, 0, 1]),
        "words": [3, 4, 5, 6, 7, 8, 9], "clusters": np.arange(7),
    }  # fmt: skip
    return analyse_classes(**values | changes)


# ----- Classes and pairs


def test_precision_recall_and_f1_are_those_of_the_arithmetic():
    rows = {row["label"]: row for row in small()["classes"]}
    assert list(rows) == list("abcde")
    counts = {name: (row["train_rows"], row["support"]) for name, row in rows.items()}
    assert counts == {"a": (9, 3), "b": (5, 2), "c": (1, 1), "d": (0, 0), "e": (1, 1)}
    scores = {name: (row["precision"], row["recall"], row["f1"]) for name, row in rows.items()}
    assert scores["a"] == pytest.approx((1, 2 / 3, 0.8)) and scores["b"] == pytest.approx((0.5, 0.5, 0.5))
    assert scores["c"] == pytest.approx((1 / 3, 1, 0.5))
    assert scores["d"] == (None, None, None) and rows["d"]["f1_ci95"] is None
    assert scores["e"] == (None, 0, 0) and rows["e"]["f1_ci95"] is None  # one row is too few


def test_the_interval_of_a_class_is_from_the_clusters_that_it_occurs_in():
    rng = np.random.default_rng(3)
    references, predictions = rng.integers(0, 3, 60), rng.integers(0, 3, 60)
    references[:2] = predictions[:2] = 3  # two rows of the last class
    probabilities, train = np.full((60, 4), 0.25), np.ones(4, int)
    found = analyse_classes(references, predictions, probabilities, list("abcd"), train, range(60), range(60))
    f1 = f1_score(references, predictions, labels=range(4), average=None)
    for row, value in zip(found["classes"][:3], f1, strict=False):
        low, high = row["f1_ci95"]
        assert row["f1"] == pytest.approx(value) and 0 <= low < value < high <= 1
    assert found["classes"][3]["f1"] == 1 and found["classes"][3]["f1_ci95"] is None
    few = analyse_classes(references, predictions, probabilities, list("abcd"), train, range(60), np.arange(60) % 5)
    assert all(row["f1_ci95"] is None for row in few["classes"])


def test_confusion_holds_each_row_once_and_pairs_are_its_errors_by_frequency():
    probabilities = np.full((7, 5), 0.2)
    probabilities[2, 1] = 0.5
    found = small(probabilities=probabilities)
    assert found["confusion"] == [[0, 0, 2], [0, 1, 1], [1, 1, 1], [1, 2, 1], [2, 2, 1], [4, 2, 1]]
    assert found["confused_pairs"][0] == {
        "true": "a", "predicted": "b", "rows": 1, "share_of_true": pytest.approx(1 / 3), "confidence": 0.5
    }  # fmt: skip
    twice = small(predictions=np.array([0, 0, 1, 2, 2, 2, 2]))["confused_pairs"]
    assert [(pair["true"], pair["predicted"], pair["rows"]) for pair in twice] == [
        ("b", "c", 2), ("a", "b", 1), ("e", "c", 1)
    ]  # fmt: skip


def test_thousands_of_classes_stay_sparse_and_pairs_are_at_most_twenty():
    found = synthetic(3000, 2000)
    assert sum(rows for _, _, rows in found["confusion"]) == 2000 and len(found["classes"]) == 3000
    assert len(found["confusion"]) <= 2000 and len(found["confused_pairs"]) == 20
    frequencies = [pair["rows"] for pair in found["confused_pairs"]]
    assert frequencies == sorted(frequencies, reverse=True)


# ----- Length and training rows


def test_length_bins_hold_every_row_once_and_about_as_many_each(analysis):
    bins = analysis["length"]["bins"]
    assert len(bins) == 8 and sum(row["rows"] for row in bins) == 1000
    assert all(100 <= row["rows"] <= 150 for row in bins)
    assert all(a["high"] < b["low"] for a, b in zip(bins, bins[1:], strict=False))
    errors = sum(round(row["error_rate"] * row["rows"]) for row in bins)
    assert errors == 1000 - sum(rows for true, predicted, rows in analysis["confusion"] if true == predicted)


def test_texts_of_one_length_share_a_bin():
    n = 100
    values = {"references": np.zeros(n, int), "predictions": np.arange(n) % 2, "probabilities": np.full((n, 5), 0.2)}
    words = [7] * 90 + [9] * 10
    bins = small(**values, words=words, clusters=np.arange(n))["length"]["bins"]
    assert [(row["low"], row["high"], row["rows"], row["error_rate"]) for row in bins] == [
        (7, 7, 90, 0.5), (9, 9, 10, 0.5)
    ]  # fmt: skip
    low, high = bins[1]["error_rate_ci95"]
    assert 0.1 < low < 0.2366 and high == pytest.approx(1 - low)  # wider than Wilson's with a known variance


def test_correlations_have_their_sign_and_are_none_where_nothing_varies():
    found = small(words=[1, 1, 9, 1, 9, 1, 9])
    assert found["length"]["spearman"] == pytest.approx(1)
    # error rates of a, b, c, e: 1/3, 1/2, 0, 1 with 9, 5, 1, 1 training rows
    assert found["training"]["pearson"] == pytest.approx(np.corrcoef([9, 5, 1, 1], [1 / 3, 1 / 2, 0, 1])[0, 1])
    assert found["training"]["spearman"] == pytest.approx(np.corrcoef([4, 3, 1.5, 1.5], [2, 3, 1, 4])[0, 1])
    right = np.array([0, 0, 0, 1, 1, 2, 4])
    found = small(predictions=right)
    assert found["length"]["spearman"] is None and found["confused_pairs"] == []
    assert found["training"] == {"pearson": None, "spearman": None}


# ----- Patterns and conflicts


@pytest.mark.parametrize(
    ("reference", "probabilities", "cut", "conflicting", "shown"),
    [
        (0, [0.04, 0.05, 0.91], False, False, {"confident"}),
        (0, [0.30, 0.29, 0.41], False, False, {"second_choice"}),
        (1, [0.31, 0.28, 0.41], False, False, {"rare_class"}),
        (0, [0.28, 0.31, 0.41], True, False, {"cut_text"}),
        (0, [0.28, 0.31, 0.41], False, True, {"conflicting_text"}),
        (0, [0.28, 0.31, 0.41], False, False, {"other"}),
        (1, [0.01, 0.04, 0.95], True, True, set(ERROR_ADVICE) - {"other"}),
        (2, [0.01, 0.04, 0.95], True, True, set()),
    ],
)
def test_a_wrong_row_shows_exactly_its_patterns(reference, probabilities, cut, conflicting, shown):
    train = np.array([20, 19, 30])
    patterns = class_error_patterns(
        np.array([2, reference]), np.array([2, 2]), np.array([[0, 0, 1], probabilities]), train, [True, cut],
        [True, conflicting],
    )  # fmt: skip
    assert patterns == {name: [1] if name in shown else [] for name in ERROR_ADVICE}


def test_with_two_classes_the_right_one_is_always_second():
    patterns = class_error_patterns(np.array([0]), np.array([1]), np.array([[0.4, 0.6]]), np.array([20, 20]), [0], [0])
    assert set(ERROR_ADVICE) - set(patterns) == {"second_choice"} and patterns["other"] == [0]


def test_conflicts_are_texts_equal_once_normalised_and_set_the_ceiling():
    texts = ["Heart failure.", "heart  FAILURE", "heart failure", "Gout", "gout!", "asthma"]
    found = label_conflicts(texts, ["heart", "heart", "lung", "joint", "joint", "lung"])
    assert found == {
        "conflicting_texts": 1, "conflicting_rows": 3, "accuracy_ceiling": pytest.approx(5 / 6),
        "rows": [True, True, True, False, False, False],
    }  # fmt: skip


# ----- Files


def test_files_hold_every_class_and_no_string_but_names(analysis):
    files = class_files(analysis, "a table\n")
    assert set(files) == {"analysis.json", "per_class.csv", "classification_report.txt"}
    assert files["classification_report.txt"] == "a table\n"
    written = json.loads(files["analysis.json"])
    assert written == json.loads(json.dumps(analysis, allow_nan=False))

    def strings(value) -> set[str]:
        values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return {value} if isinstance(value, str) else set().union(*map(strings, values))

    assert strings(written) == set(analysis["labels"])
    rows = list(csv.DictReader(io.StringIO(files["per_class.csv"], newline="")))
    assert list(rows[0]) == ["label", "train_rows", "support", "precision", "recall", "f1", "f1_low", "f1_high"]
    assert [row["label"] for row in rows] == analysis["labels"]
    for row, known in zip(rows, analysis["classes"], strict=True):
        assert float(row["f1"]) == known["f1"] and [float(row["f1_low"]), float(row["f1_high"])] == known["f1_ci95"]


def test_a_class_that_was_never_seen_has_empty_cells():
    assert "d,0,0,,,,," in class_files(small(), "")["per_class.csv"].splitlines()


# ----- Plots


@pytest.mark.parametrize("plot", PLOTS)
@pytest.mark.parametrize(("n", "rows"), [(2, 40), (60, 600)])
def test_plots_are_images_that_show_something(tmp_path, plot, n, rows):
    analysis = synthetic(n, rows, ["costs $5, $6 or \\$x_$ " + "long " * 20 + str(i) for i in range(n)])
    assert plot(analysis, tmp_path / "plot.png") is True
    pixels = imread(tmp_path / "plot.png")
    assert 500 < pixels.shape[0] < 3300 and 500 < pixels.shape[1] < 3300
    assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 20


@pytest.mark.parametrize("plot", PLOTS)
def test_nothing_is_drawn_from_nothing(tmp_path, plot):
    assert plot({}, tmp_path / "plot.png") is False and not list(tmp_path.iterdir())


def tree_analysis(parents: int, children: int, rows: int = 400) -> dict:
    """The analysis of two levels, `parents` with `children` each, where half of each child's rows are wrong."""
    tree = LabelTree.from_paths([(f"p{p}", f"c{p}-{c:02d}") for p in range(parents) for c in range(children)])
    references = np.arange(rows) % len(tree.leaves)
    predictions = np.where(np.arange(rows) < rows // 2, references, (references + 1) % len(tree.leaves))
    levels = [
        analyse_classes(
            tree.ancestors[references, level], tree.ancestors[predictions, level], np.full((rows, len(names)), 0.5),
            names, np.bincount(tree.ancestors[references, level]), np.arange(rows) + 5,
            np.arange(rows),
        )
        for level, names in enumerate(tree.levels)
    ]  # fmt: skip
    return levels[1] | {"tree": tree.to_dict(), "level_names": tree.level_names, "levels": levels[:1]}


def labels_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_a_tree_names_each_branch_with_its_error_rate_in_color_and_width(figures, tmp_path):
    found = tree_analysis(2, 2)
    found["classes"][3] |= {"support": 0, "recall": None}
    found["levels"][0]["classes"][1] |= {"support": 50, "recall": 0.9}
    found["classes"][0] |= {"recall": 0.0}
    assert plot_tree(found, tmp_path) is True
    rate = f"{1 - found['levels'][0]['classes'][0]['recall']:.0%} of 200"
    assert labels_of(figures[0]) == [
        f"p0  {rate}", "p1  10% of 50", "c0-00  100% of 100", "c0-01  50% of 100", "c1-00  50% of 100",
        "c1-01  no test rows",
    ]  # fmt: skip
    branches = figures[0].axes[0].patches
    widths, colors = [b.get_linewidth() for b in branches], [b.get_edgecolor() for b in branches]
    assert widths[0] > widths[2] == widths[3] > widths[1] > widths[5]
    assert colors[3] == colors[4] and len({colors[i] for i in (1, 2, 3, 5)}) == 4
    assert figures[0].axes[0].get_title() == "Error rate of each class\nclasses on each level: 2, 4"


def test_a_large_tree_shows_the_children_with_the_most_wrong_rows_of_every_parent(figures, tmp_path):
    found = tree_analysis(22, 13, 286)
    for i, row in enumerate(found["classes"]):
        row |= {"support": 100, "recall": 1 - (i % 13) / 20}
    plot_tree(found, tmp_path)
    assert "the most errors under each parent\nclasses on each level: 22, 66 of 286" in (
        figures[0].axes[0].get_title()
    )  # fmt: skip
    names = [text.split("  ")[0] for text in labels_of(figures[0])]
    assert sorted(names[22:]) == sorted(f"c{p}-{c}" for p in range(22) for c in (10, 11, 12))
    figures[0].draw_without_rendering()
    boxes = [text.get_window_extent() for text in figures[0].axes[0].texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])


def test_a_tree_of_many_parents_stays_on_a_page_and_a_flat_run_has_none(tmp_path, analysis):
    assert plot_tree(tree_analysis(200, 2), tmp_path / "tree.png") is True
    pixels = imread(tmp_path / "tree.png")
    assert 500 < pixels.shape[0] < 3300 and 500 < pixels.shape[1] < 3300
    assert plot_tree(analysis, tmp_path / "none.png") is False and not (tmp_path / "none.png").exists()


def cells(figure: Figure) -> list[int]:
    return [int(text.get_text().replace(",", "")) for text in figure.axes[0].texts]


def test_confusion_of_the_most_frequent_counts_their_rows_and_gathers_the_others(figures, tmp_path, analysis):
    assert plot_confusion(analysis, tmp_path) and plot_confusion(analysis, tmp_path, most=None)
    top, whole = figures
    support = sorted((row["support"] for row in analysis["classes"]), reverse=True)
    assert sum(cells(top)) == sum(support[:15]) and sum(cells(whole)) == 1000
    shares, all_shares = (figure.axes[0].images[0].get_array() for figure in figures)
    assert shares.shape == (15, 16) and all_shares.shape == (23, 23)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    names = [text.get_text() for text in top.axes[0].get_xticklabels()]
    assert len(names) == 16 and names[-1] == "other"
    assert "other" not in [text.get_text() for text in whole.axes[0].get_xticklabels()]


def test_large_confusion_matrices_lose_numbers_then_names_then_the_rarest_classes(figures, tmp_path):
    for n in (50, 400):
        plot_confusion(synthetic(n, 1000), tmp_path, most=None)
    middle, large = (figure.axes[0] for figure in figures)
    assert not middle.texts and len(middle.get_xticklabels()) == 50
    assert not large.texts and not large.get_xticklabels()
    assert large.images[0].get_array().shape == (300, 301)
    assert large.get_title() == "Confusion matrix of the 300 most frequent of 400 classes"


def test_names_of_the_worst_classes_hide_neither_each_other_nor_leave_the_plot(figures, tmp_path):
    plot_error_by_training_rows(synthetic(60, 1000), tmp_path)
    axes = figures[0].axes[0]
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) >= 2
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])
    frame = axes.get_window_extent()
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)
    assert "Spearman -" in axes.get_title() and "Pearson -" in axes.get_title()


def test_a_threshold_is_marked_only_where_one_was_found(figures, tmp_path, analysis):
    plot_risk_coverage(analysis, tmp_path)
    none = {"max_risk": 0.1, "threshold": None, "coverage": 0.0, "risk": None}
    plot_risk_coverage(analysis | {"abstention": none}, tmp_path)
    found, missing = ([text.get_text() for text in f.axes[0].get_legend().get_texts()] for f in figures)
    assert found[0] == missing[0] and "10.0%" in found[0] and len(missing) == 1
    chosen = analysis["abstention"]
    assert f"coverage {chosen['coverage']:.1%}, risk {chosen['risk']:.1%}" in found[1]
