import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from sklearn.metrics import f1_score

from utils.factuality import factuality_statistics
from utils.metrics.__main__ import main
from utils.metrics.intervals import evaluate_statistics
from utils.metrics.statistics import CLASS_METRICS, ROUGE_TYPES, classification_statistics
from utils.metrics.summaries import summary_statistics

ABOUT = ["language", "rouge_tokenizer", "bleu_tokenizer", "tokenizer_reason", "use_stemmer"]


def write_jsonl(path: Path, rows: list) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n", encoding="utf-8")
    return path


def test_the_command_prints_one_json_object(tmp_path):
    rows = [
        {"prediction": "back pain\u2028", "reference": "pain", "source": "Why?"},
        {"prediction": "", "reference": "a"},
    ]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    command = [sys.executable, "-m", "utils.metrics", "--task", "qa", "--input_file", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    names = [*ROUGE_TYPES, "bleu", "length_ratio", "repetition"]
    expected = ["rows", *ABOUT, *(key for name in names for key in (name, f"{name}_ci95"))]
    assert list(result) == expected
    assert result["rows"] == 2
    assert result["rouge1"] == pytest.approx(1 / 3)
    assert result["rouge1_ci95"] is None and "Too few rows (2)" in done.stderr


def test_rows_that_belong_together_count_once(tmp_path, capsys):
    """The predictions of a run name their cluster: scored again, they have the intervals of its report."""
    rows = [{"prediction": "ab"[i % 3 == 0], "reference": "ab"[i % 2], "cluster": i % 40} for i in range(240)]
    scored = []
    for own in (rows, [{key: row[key] for key in ("prediction", "reference")} for row in rows]):
        main(["--task", "classification", "--input_file", str(write_jsonl(tmp_path / "rows.jsonl", own))])
        scored.append(json.loads(capsys.readouterr().out))
    together, apart = scored
    statistics = classification_statistics(
        *([row[key] for row in rows] for key in ("prediction", "reference")), ["a", "b"]
    )
    expected = evaluate_statistics(statistics, [row["cluster"] for row in rows])
    assert {key: together[key] for key in expected} == expected
    assert together["clusters"] == 40 and "clusters" not in apart
    assert together["accuracy"] == apart["accuracy"] and together["accuracy_ci95"] != apart["accuracy_ci95"]


def test_few_clusters_of_many_rows_give_no_interval(tmp_path, capsys, caplog):
    rows = [{"prediction": "a", "reference": "ab"[i % 2], "cluster": f"patient {i % 3}"} for i in range(60)]
    main(["--task", "classification", "--input_file", str(write_jsonl(tmp_path / "rows.jsonl", rows))])
    assert json.loads(capsys.readouterr().out)["accuracy_ci95"] is None
    assert "Too few clusters (3, as telling as 3.0 of one size) to tell" in caplog.text


def test_clusters_of_very_different_sizes_say_why_there_is_no_interval(tmp_path, capsys, caplog):
    rows = [{"prediction": "a", "reference": "ab"[i % 2], "cluster": max(i - 150, 0)} for i in range(170)]
    main(["--task", "classification", "--input_file", str(write_jsonl(tmp_path / "rows.jsonl", rows))])
    result = json.loads(capsys.readouterr().out)
    assert result["clusters"] == 20 and result["accuracy_ci95"] is None
    assert "Too few clusters (20, as telling as 1.3 of one size) to tell" in caplog.text


def test_one_cluster_is_one_however_its_id_is_written(tmp_path, capsys):
    rows = [
        {"prediction": "a", "reference": "ab"[i % 2], "cluster": str(i % 12) if i % 2 else i % 12} for i in range(48)
    ]
    main(["--task", "classification", "--input_file", str(write_jsonl(tmp_path / "rows.jsonl", rows))])
    assert json.loads(capsys.readouterr().out)["clusters"] == 12


@pytest.mark.parametrize(
    ("row", "said"),
    [({}, "differs from the first: give `cluster`"), ({"cluster": None}, "a `cluster` of type NoneType")],
)
def test_a_cluster_stands_in_every_line_or_in_none(tmp_path, capsys, row, said):
    first = {"prediction": "a", "reference": "a"}
    path = write_jsonl(tmp_path / "rows.jsonl", [first | {"cluster": 1}, first | row])
    with pytest.raises(SystemExit) as stop:
        main(["--task", "classification", "--input_file", str(path)])
    assert stop.value.code == 2 and said in capsys.readouterr().err


def test_the_stemmer_is_an_option(tmp_path, capsys):
    rows = [{"prediction": "treated patients", "reference": "treating patient", "source": "a"}]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    main(["--task", "summarization", "--input_file", str(path)])
    plain = json.loads(capsys.readouterr().out)
    main(["--task", "summarization", "--input_file", str(path), "--use_stemmer"])
    assert plain["rouge1"] == 0 and json.loads(capsys.readouterr().out)["rouge1"] == 1


def test_a_summary_is_also_compared_with_its_source(tmp_path, capsys):
    rows = [
        {"prediction": "Fever, takes 20 mg of aspirin.", "reference": "Fever.", "source": "I have a fever."},
        {"prediction": "Cough.", "reference": "Cough for 3 days.", "source": "A cough for 3 days."},
    ]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    main(["--task", "summarization", "--input_file", str(path)])
    result = json.loads(capsys.readouterr().out)
    predictions, references, sources = ([row[key] for row in rows] for key in ("prediction", "reference", "source"))
    statistics = summary_statistics(predictions, references, sources)
    statistics |= factuality_statistics(predictions, references, sources)
    assert list(result) == ["rows", *ABOUT, *(key for name in statistics for key in (name, f"{name}_ci95"))]
    assert result["any_hallucination"] == result["hallucinated_drugs"] == 0.5 and result["omitted_numbers"] == 0.5
    assert result["compression"] == pytest.approx(9 / 7) and result["novel_4gram"] == 1


def test_what_is_not_defined_is_null(tmp_path, capsys):
    rows = [{"prediction": "", "reference": "a", "source": "b"}]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    main(["--task", "summarization", "--input_file", str(path)])
    result = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert result["compression"] is None and result["novel_1gram_ci95"] is None and result["chrf"] == 0


def test_bertscore_is_named_after_its_model_and_layer(tmp_path, capsys, tiny_bert):
    rows = [{"prediction": "heart murmur", "reference": "heart murmur"}, {"prediction": "", "reference": "fever"}]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    flags = ["--bertscore_model", str(tiny_bert), "--bertscore_layer", "1"]
    main(["--task", "qa", "--input_file", str(path), *flags])
    result = json.loads(capsys.readouterr().out)
    assert result["bertscore_model"] == "tiny-bert layer 1" and result["bertscore_f1"] == pytest.approx(0.5, abs=1e-6)


def test_classification_takes_text_and_whole_numbers(tmp_path, capsys):
    references, predictions = [0, 1, 1, 2], ["0", 1, 2, 7]
    rows = [{"prediction": p, "reference": r} for p, r in zip(predictions, references, strict=True)]
    main(["--task", "classification", "--input_file", str(write_jsonl(tmp_path / "rows.jsonl", rows))])
    result = json.loads(capsys.readouterr().out)
    scores = f1_score(references, [0, 1, 2, 7], labels=[0, 1, 2, 7], average=None)
    names = ["accuracy", *CLASS_METRICS]
    assert list(result) == ["rows", *(key for name in names for key in (name, f"{name}_ci95"))]
    assert result["accuracy"] == 0.5
    assert result["macro_f1"] == pytest.approx(scores.mean())
    assert result["weighted_f1"] == pytest.approx(scores @ [1, 2, 1, 0] / 4)


ROW = b'{"prediction": "a", "reference": "b"}\n'
SOURCED = b'{"prediction": "a", "reference": "b", "source": %s}'


@pytest.mark.parametrize(
    ("task", "content", "message"),
    [
        ("qa", None, "`input_file` rows.jsonl cannot be read (No such file or directory): give a jsonl file."),
        ("qa", b"", "`input_file` rows.jsonl has no rows: "),
        ("qa", b"\n \n", "`input_file` rows.jsonl has no rows: "),
        ("qa", ROW + b"\n{broken\n", "`input_file` rows.jsonl, line 3, is not JSON (Expecting property name"),
        ("qa", ROW + b"\xff\n", "`input_file` rows.jsonl is not UTF-8 (byte 38): "),
        ("qa", ROW + b'{"prediction": "a", "label": 1}', "line 2, has no `reference`, only ['label', 'prediction']: "),
        ("qa", b"[1]", "line 1, has no `prediction`, only list: "),
        ("qa", b'{"prediction": null, "reference": "b"}', "line 1, has a `prediction` of type NoneType: write str."),
        ("summarization", b'{"prediction": "a", "reference": 3}', "line 1, has a `reference` of type int: write str."),
        ("qa", b'{"prediction": "a", "reference": " "}', "line 1, has an empty `reference`: "),
        (
            "classification",
            b'{"prediction": 1.5, "reference": 1}',
            "of type float: write str or int, or a list of them.",
        ),
        (
            "summarization",
            ROW + b'{"prediction": "a", "reference": "b", "source": ""}',
            "line 2, differs from the first: ",
        ),
        (
            "summarization",
            b'{"prediction": "a", "reference": "b", "source": 1}',
            "has a `source` of type int: write str.",
        ),
        ("translation", ROW, "`task`: invalid choice: 'translation'"),
    ],
)
def test_mistakes_exit_with_2_and_one_line_that_names_file_line_and_key(
    task, content, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("rows.jsonl").write_bytes(content)
    with pytest.raises(SystemExit) as stop:
        main(["--task", task, "--input_file", "rows.jsonl"])
    out, err = capsys.readouterr()
    assert stop.value.code == 2
    assert out == ""
    assert err.startswith("error: ") and err.count("\n") == 1
    assert message in err


def test_a_missing_flag_is_named(capsys):
    with pytest.raises(SystemExit):
        main(["--task", "qa"])
    assert "--input_file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--task", "qa", "--bertscore_layer", "3"],
            "`bertscore_layer` is given without `bertscore_model`: ",
        ),
        (["--task", "classification", "--bertscore_model", "x"], "`bertscore_model` is given with `task` classifica"),
        (["--task", "qa", "--bertscore_model", "no/such"], "`bertscore_model` no/such cannot be loaded ("),
    ],
)
def test_a_bertscore_that_cannot_be_is_one_line(flags, message, tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_bytes(ROW)
    with pytest.raises(SystemExit) as stop:
        main([*flags, "--input_file", str(tmp_path / "rows.jsonl")])
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.count("\n") == 1 and message in err


CHINESE = [
    {
        "prediction": "患者有高血压，服用aspirin。",
        "reference": "患者有高血压，服用aspirin。",
        "source": "医生：您有高血压吗？患者：有。",
    },
    {"prediction": "没有发热。", "reference": "患者发热三天。", "source": "患者：我发热三天了，没有咳嗽。"},
]


def test_texts_without_a_to_z_are_compared_and_what_reads_english_is_left_out(tmp_path, capsys, caplog):
    path = write_jsonl(tmp_path / "rows.jsonl", CHINESE)
    main(["--task", "summarization", "--input_file", str(path), "--use_stemmer", "true"])
    result = json.loads(capsys.readouterr().out)
    assert result["language"] == ["zh"] and not result["use_stemmer"]
    assert (result["rouge_tokenizer"], result["bleu_tokenizer"]) == ("unicode", "zh") and "Han" in result[
        "tokenizer_reason"
    ]
    assert 0.5 < result["rouge1"] < 1 and 0 < result["bleu"] < 1 and 1 < result["compression"]
    assert not any("halluc" in key or "omi" in key for key in result)
    assert "`use_stemmer`" in caplog.text and "Hallucinations" in caplog.text
    main(["--task", "summarization", "--input_file", str(path), "--language", "en"])
    assert "hallucination" in json.loads(capsys.readouterr().out)


def test_lists_of_labels_score_as_in_scikit_learn(tmp_path, capsys):
    rows = [
        {"prediction": ["a", "b"], "reference": ["b"]},
        {"prediction": [], "reference": ["a", "c"]},
        {"prediction": ["d"], "reference": ["d"]},
        {"prediction": ["e", "d"], "reference": ["b", "d"]},
    ]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    main(["--task", "classification", "--input_file", str(path), "--compare_libraries"])
    result = json.loads(capsys.readouterr().out)
    theirs = {key.removeprefix("sklearn_"): value for key, value in result.items() if key.startswith("sklearn_")}
    assert {"micro_f1", "macro_f1", "weighted_f1", "samples_f1", "accuracy", "micro_recall"} <= theirs.keys()
    assert {key: result[key] for key in theirs} == pytest.approx(theirs)
    assert result["micro_f1"] == pytest.approx(6 / 11) and result["accuracy"] == 0.25


@pytest.mark.parametrize(
    "row",
    [
        {"prediction": ["a"], "reference": "a"},
        {"prediction": "a", "reference": ["a"]},
        {"prediction": ["a"], "reference": []},
        {"prediction": [["a"]], "reference": ["a"]},
        {"prediction": ["a"], "reference": [None]},
        {"prediction": "a", "reference": "a"},
    ],
)
def test_lists_of_labels_that_cannot_be_scored_are_refused_with_their_line(row, tmp_path, capsys):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"prediction": ["a"], "reference": ["a", "b"]}, row])
    with pytest.raises(SystemExit) as stopped:
        main(["--task", "classification", "--input_file", str(path)])
    assert stopped.value.code == 2 and "line 2" in capsys.readouterr().err
