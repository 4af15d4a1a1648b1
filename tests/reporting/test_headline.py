"""The top of a report, the file to send to someone, and what a run prints at its end."""

from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.image import imsave

from utils.json_files import write_json
from utils.reporting.console import closing
from utils.reporting.headline import best_baseline, headline_metrics, headline_rows, look_at, opening
from utils.reporting.html_report import to_html
from utils.reporting.report import write_report
from utils.reporting.tables import format_number

TASK = {"task": "classification", "base_model": "/models/own/tiny", "data": {"train_file": "/home/me/notes.csv"}}
RESULTS = {
    "test_macro_f1": 0.7, "test_macro_f1_ci95": [0.5, 0.8], "test_accuracy": 0.8, "base_test_macro_f1": 0.1,
    "baseline_a_test_macro_f1": 0.6, "baseline_b_test_macro_f1": 0.69, "baseline_encoder_alone_test_macro_f1": 0.9,
    "delta_baseline_b_test_macro_f1": 0.01, "delta_baseline_b_test_macro_f1_ci95": [-0.1, 0.1],
    "test_rows": 50, "train_rows": 400, "data_rows_read": 500, "data_dropped_duplicate": 40, "data_dropped_short": 1,
    "errors_rare_class": 7, "errors_cut_text": 0,
}  # fmt: skip


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen, self.text = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def read(html: str) -> Page:
    page = Page()
    page.feed(html)
    return page


def test_the_best_baseline_needs_no_part_of_the_model_and_knows_the_direction():
    assert best_baseline(RESULTS, "macro_f1") == "baseline_b_test_"
    lower = {"test_loss": 1.0, "baseline_a_test_loss": 2.0, "baseline_b_test_loss": 3.0, "base_test_loss": 0.5}
    assert best_baseline(lower, "loss") == "baseline_a_test_"
    assert best_baseline({"test_loss": 1.0}, "loss") is None


@pytest.mark.parametrize(
    ("delta", "said"),
    [
        ({"": 0.01, "_ci95": [-0.1, 0.1]}, "A simple method does as well:** b"),
        ({"": -0.2, "_ci95": [-0.3, -0.1]}, "A simple method does better:** b"),
        ({"": -0.2, "_ci95": None}, "A simple method may do as well:** b"),
        ({"": 0.2, "_ci95": [0.1, 0.3]}, None),
    ],
)
def test_what_a_simple_method_does_is_what_the_test_says(delta, said):
    own = {f"delta_baseline_b_test_macro_f1{suffix}": value for suffix, value in delta.items()}
    text = look_at(RESULTS | own | {"test_clusters": 9}, {})
    assert said in text if said else "A simple method" not in text


def test_a_run_without_any_interval_says_why():
    text = look_at(RESULTS | {"test_macro_f1_ci95": None, "test_clusters": 9}, {})
    assert "no number has an interval" in text and "with 9 clusters" in text and "`test_fraction`" in text
    assert "no number has an interval" not in look_at(RESULTS | {"test_clusters": 40}, {})


def test_the_table_on_top_has_a_row_a_system_and_two_metrics():
    header, rows = headline_rows(RESULTS)
    assert headline_metrics(RESULTS) == ["macro_f1", "accuracy"] and len(header) == 4
    assert {len(row) for row in rows} == {4} and [row[0].split(" (")[0] for row in rows][:2] == [
        "fine-tuned", "base model",
    ]  # fmt: skip
    assert headline_rows({"train_loss": 1.0}) == ([], [])


def test_the_opening_has_no_local_path():
    text = opening(RESULTS, TASK, is_adapter=True)
    assert "tiny" in text and "notes.csv" in text and "/home" not in text and "/models" not in text


def test_what_to_look_at_is_what_happened():
    text = look_at(RESULTS, {"rare_class": "Collect rows.", "cut_text": "Raise it."}, ["A note."])
    for found in ("Collect rows.", "A note.", "dropped duplicate", "40 of 500"):
        assert found in text
    for absent in ("Raise it.", "dropped short"):
        assert absent not in text
    kept = {"data_similar_keys": 2, "data_rows_repeated_in_other_groups": 0, "data_rows_without_group": 3}
    text = look_at(RESULTS | kept, {})
    assert "2 labels or groups differ only" in text and "3 rows have no group" in text
    assert "duplicates are of" not in text
    clear = RESULTS | {"delta_baseline_b_test_macro_f1_ci95": [0.005, 0.02], "test_macro_f1_ci95": [0.69, 0.71]}
    assert len(look_at(clear, {}).split("\n")) == len(look_at(RESULTS, {}).split("\n")) - 2


def test_a_number_that_is_none_is_a_dash():
    assert format_number(float("nan")) == format_number(None) == "-"


def test_the_html_report_is_one_file_that_loads_nothing(tmp_path):
    (tmp_path / "plots").mkdir()
    imsave(tmp_path / "plots" / "a.png", np.zeros((2, 2)))
    imsave(tmp_path.parent / "outside.png", np.zeros((2, 2)))
    text = (
        "# R\n\n![a](plots/a.png)\n\n![far](https://example.org/x.png) ![up](../outside.png) ![no](plots/none.png)\n\n"
        "| class | n |\n|---|---|\n| <script>alert(1)</script><img src=x> | 1 |\n"
    )
    page = read(to_html(text, tmp_path))
    assert [attrs["src"][:22] for tag, attrs in page.seen if tag == "img"] == ["data:image/png;base64,"]
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.seen}
    assert "table" in {tag for tag, _ in page.seen} and "<script>alert(1)</script>" in "".join(page.text)
    assert any("default-src 'none'" in attrs.get("content", "") for tag, attrs in page.seen if tag == "meta")


def test_a_report_has_its_plots_inside_and_the_console_its_headline(tmp_path):
    write_json(tmp_path / "all_results.json", RESULTS)
    write_json(tmp_path / "task.json", TASK)
    write_json(tmp_path / "trainer_state.json", {"log_history": [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]})
    report = write_report(tmp_path)
    page = read(report.with_suffix(".html").read_text())
    pictures = [attrs for tag, attrs in page.seen if tag == "img"]
    assert len(pictures) == 2 and all(p["src"].startswith("data:") and p["alt"] for p in pictures)
    text = closing(tmp_path / "README.md", report)
    assert text.count("0.700 [0.500, 0.800]") == 2  # the sentence and the table, once each
    assert str(tmp_path / "report.html") in text and "python predict.py" in text.splitlines()[-1]
