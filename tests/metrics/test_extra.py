"""Metrics of the library `evaluate` by name: checked before any work, and compared on the same predictions."""

from pathlib import Path

import numpy as np
import pytest
from conftest import assert_remade, qa_flags, run_here
from test_run_classification import classify, refused

from run_qa_sft import ARGUMENTS, main
from utils.arguments import UserError
from utils.extra_metrics import check_extra_metrics
from utils.metrics.extra import compare_extra

METRIC = """
import datasets
import evaluate


class Own(evaluate.Metric):
    def _info(self):
        values = {{"predictions": datasets.Value("{kind}"), "references": {references}}}
        return evaluate.MetricInfo(description="", citation="", features=datasets.Features(values))

    def _compute(self, predictions, references):
        {body}
"""


def write_metric(folder: Path, name: str, body: str, kind: str = "string", several: bool = False) -> str:
    (folder / name).mkdir(parents=True)
    value = f'datasets.Value("{kind}")'
    references = f"datasets.Sequence({value})" if several else value
    code = METRIC.format(kind=kind, references=references, body=body)
    (folder / name / f"{name}.py").write_text(code, encoding="utf-8")
    return str(folder / name)


MEAN = "return {'share': sum(p == r for p, r in zip(predictions, references)) / len(predictions), 'about': 'text'}"
LIST = "return {'each': [float(len(p)) for p in predictions]}"
WHOLE = "return {'whole': len(set(predictions)) / 2}"
SEVERAL = "return {'several': sum(p in r for p, r in zip(predictions, references)) / len(predictions)}"


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("modules")  # Python imports its package once


@pytest.fixture
def folder(tmp_path, cache, monkeypatch) -> Path:
    monkeypatch.setattr("evaluate.config.HF_MODULES_CACHE", cache)
    return tmp_path


def test_means_over_rows_have_intervals_and_differences_and_other_numbers_have_a_value_alone(folder):
    names = [
        write_metric(folder, "share", MEAN), write_metric(folder, "each", LIST), write_metric(folder, "whole", WHOLE),
        write_metric(folder, "several", SEVERAL, several=True),
    ]  # fmt: skip
    references = [f"answer {i}" for i in range(20)]
    systems = {"test": references[:15] + ["no"] * 5, "base_test": ["no"] * 18 + references[18:]}
    found = compare_extra(names, systems, references, list(range(20)))
    assert found["test_extra_share"] == found["test_extra_several"] == 0.75 and found["base_test_extra_share"] == 0.1
    assert (
        found["delta_base_test_extra_share"] == pytest.approx(0.65) and found["delta_base_test_extra_share_p"] < 0.01
    )
    low, high = found["test_extra_share_ci95"]
    assert 0.3 < low < 0.75 < high
    assert found["test_extra_each"] == np.mean([len(text) for text in systems["test"]])
    assert found["test_extra_whole"] == 8 and "test_extra_whole_ci95" not in found
    assert not any("about" in key for key in found)


def test_classes_are_passed_as_numbers_or_as_texts_as_the_metric_asks(folder):
    names = [write_metric(folder, "share", MEAN, kind="int32"), write_metric(folder, "exact", MEAN)]
    found = compare_extra(names, {"test": np.array([0, 1, 2, 2])}, np.array([0, 1, 2, 0]), list("abcd"))
    assert found["test_extra_share"] == found["test_extra_exact_share"] == 0.75


def test_a_metric_that_fails_on_predictions_costs_no_run(folder, caplog):
    names = [
        write_metric(folder, "breaks", "return {'x': 1 / (predictions == references)}"),
        write_metric(folder, "share", MEAN),
    ]
    found = compare_extra(names, {"test": ["a", "b"]}, ["b", "a"], [0, 1])
    assert found["test_extra_share"] == 0 and "breaks" in caplog.text and not any("breaks" in key for key in found)


@pytest.mark.parametrize("name", ["meteor", "someone/metric", "no/such/folder"])
def test_code_of_the_hub_runs_only_if_the_recipe_trusts_it(name, monkeypatch):
    monkeypatch.setattr("evaluate.load", lambda *_, **__: pytest.fail("loads it"))
    with pytest.raises(UserError, match="trust_remote_code"):
        check_extra_metrics([name], False, ["text"])


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("return {'x': 1 / 0}", "string"),
        ("return {'x': 'text'}", "string"),
        ("return None", "string"),
        (MEAN, "int32"),
    ],
)
def test_a_metric_that_does_not_fit_is_refused_before_training(folder, body, kind):
    own = write_metric(folder, "own", body, kind)
    with pytest.raises(UserError, match="extra_metrics"):
        check_extra_metrics([own], False, ["text"])


def test_two_of_a_name_a_broken_file_and_one_that_cannot_be_had_are_refused(folder, monkeypatch):
    first, second = write_metric(folder, "own", MEAN), write_metric(folder / "second", "own", MEAN)
    (folder / "broken").mkdir()
    (folder / "broken" / "broken.py").write_text("import no_such_package_of_metrics", encoding="utf-8")
    for names in ([first, second], [str(folder / "broken")], ["meteor"]):
        with pytest.raises(UserError, match="extra_metrics"):
            check_extra_metrics(names, True, ["text"])


def test_a_run_reports_it_for_every_system_and_evaluates_it_again(tiny_llama, data, folder):
    own = write_metric(folder, "share", MEAN)
    argv = qa_flags(tiny_llama, folder / "run", train_file=data.qa, answer_column="answer", extra_metrics=[own])
    done = run_here(main, ARGUMENTS, argv)
    assert done.code == 0, done.stderr
    for system in ("test", "base_test", "baseline_nearest_question_test"):
        assert 0 <= done.results[f"{system}_extra_share"] <= 1
    assert "extra share" in (done.folder / "report.md").read_text(encoding="utf-8")
    assert_remade(done, folder / "again")


def test_a_classifier_refuses_a_metric_of_texts(tiny_bert, data, folder):
    own = write_metric(folder, "own", "return {'x': float(len(predictions[0].split()[1]))}")
    assert "`extra_metrics`" in refused(tiny_bert, folder / "run", train_file=data.notes, extra_metrics=[own])
    share = write_metric(folder, "share", MEAN, kind="int32")
    run = classify(tiny_bert, folder / "run", train_file=data.notes, extra_metrics=[share])
    assert run.results["test_extra_share"] == pytest.approx(run.results["test_accuracy"])
