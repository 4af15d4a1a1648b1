import json
import math
import shutil

import pytest
import torch
from conftest import Run, flags, qa_flags, read_jsonl, run_here, run_predict, run_script, toy_rows, write_rows
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

import run_classification
from run_qa_sft import ARGUMENTS, main
from tests.forks import start_forks
from tests.hub_server import serve_hub
from utils.arguments import UserError
from utils.citations import cite
from utils.inference import Predictor
from utils.push import PUBLISHED
from utils.retrieval import NO_SUPPORT, Retriever, add_passages
from utils.task import upgrade_task


@pytest.fixture(scope="module")
def run(tiny_llama, data, tmp_path_factory) -> Run:
    """A finished run in float32, where a row's answer does not depend on the rows beside it."""
    folder = tmp_path_factory.mktemp("served") / "run"
    done = run_here(main, ARGUMENTS, qa_flags(tiny_llama, folder, train_file=data.qa, answer_column="answer"))
    assert done.code == 0, done.stderr
    return done


def refused(model, **values) -> str:
    done = run_predict(model, **values)
    assert done.code == 2 and done.stdout == "", done.stdout
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


# ----- Answers


def test_the_predictor_gives_the_answers_that_the_run_measured(run):
    rows = run.predictions
    for batch_size in (1, 8):
        answers = Predictor.from_pretrained(str(run.folder))([row["source"] for row in rows], batch_size)
        assert [a["prediction"] for a in answers] == [row["prediction"] for row in rows]
        assert [a["finished"] for a in answers] == [row["finished"] for row in rows]


def test_the_adapter_is_what_answers(run):
    predictor = Predictor.from_pretrained(str(run.folder))
    assert any("lora_B" in name and p.abs().sum() > 0 for name, p in predictor.model.named_parameters())
    assert not predictor.model.training


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_file_is_answered_in_its_order_with_its_ids(run, tmp_path, ending):
    rows = list(reversed(run.predictions))  # another order than that of the lengths
    asked = [{"id": row["id"], "question": row["source"], "note": "x"} for row in rows]
    path = write_rows(tmp_path / f"questions.{ending}", asked)
    done = run_predict(run.folder, input_file=path, output_file=tmp_path / "answers.jsonl", batch_size=3)
    assert done.code == 0, done.stderr
    answers = read_jsonl(tmp_path / "answers.jsonl")
    assert [a["id"] for a in answers] == [row["id"] for row in rows]
    assert [a["prediction"] for a in answers] == [row["prediction"] for row in rows]


def test_one_text_is_answered_on_standard_output(run):
    row = run.predictions[0]
    done = run_predict(run.folder, text=row["source"])
    found = json.loads(done.stdout)
    assert found.pop("confidence") == pytest.approx(row["confidence"]) and found.pop("cut") is False
    assert found == {key: row[key] for key in ("prediction", "finished")}


def test_a_shorter_answer_can_be_asked_for(run):
    answer, short = (
        json.loads(run_predict(run.folder, text="What is cardiitis?", max_new_tokens=n).stdout) for n in (6, 1)
    )
    assert len(short["prediction"]) < len(answer["prediction"])


def test_no_inputs_give_no_answers(run):
    assert Predictor.from_pretrained(str(run.folder))([]) == []


def test_rows_with_options_get_the_likeliest_with_probabilities(tiny_llama, data, tmp_path):
    done = run_here(
        main, ARGUMENTS,
        qa_flags(
            tiny_llama, tmp_path / "run", train_file=data.exam, options_column="options",
            answer_index_column="answer_index", near_duplicate_threshold=1.0,
        ),
    )  # fmt: skip
    assert done.code == 0, done.stderr
    exam = {row["id"]: row for row in read_jsonl(data.exam)}
    rows = [exam[row["id"]] for row in done.predictions]
    predictor = Predictor.from_pretrained(str(done.folder))
    answers = predictor(rows, batch_size=3)
    (blank,) = predictor([rows[0] | {"options": [None, *rows[0]["options"][1:]]}])
    assert blank["probabilities"][0] == 0 and sum(blank["probabilities"]) == pytest.approx(1)
    assert blank["option"] == max(range(4), key=blank["probabilities"].__getitem__)
    for row, answer in zip(rows, answers, strict=True):
        assert sum(answer["probabilities"]) == pytest.approx(1) and len(answer["probabilities"]) == 4
        assert answer["option"] == max(range(4), key=answer["probabilities"].__getitem__)
        assert answer["prediction"] == f"{'ABCD'[answer['option']]}. {row['options'][answer['option']]}"
    right = sum(a["option"] == row["answer_index"] for a, row in zip(answers, rows, strict=True))
    assert right / len(rows) == pytest.approx(done.results["test_accuracy"])


def test_a_run_that_trained_every_weight_is_served_without_its_base_model(tiny_llama, data, tmp_path):
    base = shutil.copytree(tiny_llama, tmp_path / "base")
    argv = qa_flags(base, tmp_path / "run", train_file=data.qa, answer_column="answer", use_peft=False)
    done = run_here(main, ARGUMENTS, argv)
    assert done.code == 0, done.stderr
    shutil.rmtree(base)
    rows = done.predictions
    answers = Predictor.from_pretrained(str(done.folder))([row["source"] for row in rows])
    assert [a["prediction"] for a in answers] == [row["prediction"] for row in rows]


# ----- Passages


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    rows = [{"id": r["id"], "title": "Leaflet", "source": "Toy", "text": r["answer"]} for r in toy_rows()]
    return write_rows(tmp_path_factory.mktemp("corpus") / "corpus.csv", rows)


def test_a_question_is_asked_with_the_passages_that_share_its_words(run, corpus):
    predictor = Predictor.from_pretrained(str(run.folder))
    rows = [{"question": "What is cardiitis?"}, {"question": "zzyzx"}]
    asked, passages = add_passages(rows, Retriever.from_file(corpus, 32), 3, predictor.tokenizer, predictor.task)
    assert len(passages[0]) == 1 and passages[0][0].text.startswith("Cardiitis") and passages[1] == []
    for row, wanted, own in zip(rows, predictor.predict(asked), passages, strict=True):
        done = run_predict(run.folder, text=row["question"], corpus_file=corpus)
        found = json.loads(done.stdout)
        assert found.pop("confidence") == pytest.approx(wanted.pop("confidence"), rel=1e-3)  # batches of other sizes
        assert found == wanted | cite(wanted["prediction"], own), done.stderr


def test_an_answer_that_a_passage_holds_cites_it_and_another_says_that_none_does(run, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "run")
    task = json.loads((folder / "task.json").read_text()) | {"prompt_template": "What is it?"}
    (folder / "task.json").write_text(json.dumps(task))  # the answer is the same, whatever the passages
    (answer,) = Predictor.from_pretrained(str(folder))(["cardiitis"])
    texts = ["Cardiitis of the elbow.", f"Cardiitis. {answer['prediction']}"]
    corpus = write_rows(tmp_path / "corpus.jsonl", [{"text": text, "source": "Toy"} for text in texts])
    asked = write_rows(tmp_path / "in.jsonl", [{"id": 7, "question": "elbow cardiitis"}, {"id": 8, "question": 12}])
    done = run_predict(folder, input_file=asked, corpus_file=corpus)
    found, other = map(json.loads, done.stdout.splitlines())
    assert found["id"] == 7 and found["supported"] == 1.0 and "[2]" in found["prediction"]
    assert [(p["number"], p["cited"], p["source"]) for p in found["passages"]] == [(1, False, "Toy"), (2, True, "Toy")]
    assert other["passages"] == [] and other["supported"] == 0.0 and f"[{NO_SUPPORT}]" in other["prediction"]


def test_a_corpus_that_is_none_is_refused(run, tmp_path):
    path = write_rows(tmp_path / "corpus.jsonl", [{"body": "Jane Doe"}])
    error = refused(run.folder, text="What is it?", corpus_file=path)
    assert "no column `text`" in error and "Jane" not in error
    assert "does not exist" in refused(run.folder, text="What is it?", corpus_file="no_such.csv")
    assert "is a folder" in refused(run.folder, text="What is it?", corpus_file="")


def test_a_corpus_is_for_models_that_write_answers(run, corpus, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "run")
    task = json.loads((folder / "task.json").read_text())
    task["columns"]["options"] = "options"
    (folder / "task.json").write_text(json.dumps(task))
    assert "`corpus_file`" in refused(folder, text="What is it?", corpus_file=corpus)


# ----- Mistakes


def test_a_model_that_is_not_there_is_named(tmp_path):
    for model in (tmp_path / "nothing", "org/not-here"):
        assert f"`model` {model} is neither a folder nor a repository" in refused(model, text="What is it?")


def test_a_folder_that_is_no_finished_run_is_named(tiny_llama):
    assert "has no task.json" in refused(tiny_llama, text="What is it?")


def test_text_or_file_is_asked_for(run, data):
    assert "`--text` or `--input_file`" in refused(run.folder)
    assert "not both" in refused(run.folder, text="What is it?", input_file=data.qa)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"id": "1", "text": "What?"}], ["column `question` is not in", "`id`, `text`"]),
        ([{"question": "What is it?"}, {"text": "What?"}], ["row 2", "`question` is no column", "text"]),
        (
            [{"question": ["What?"]}, {"question": ""}, {"question": "a b"}],
            ["row 1", "`question` is a list", "2 rows"],
        ),
        ([{"question": "What is it?"}, {"question": "  "}], ["row 2", "`question` is empty"]),
        ([{"question": None}], ["row 1", "`question` is empty"]),
    ],
)
def test_a_row_that_cannot_be_answered_is_named_and_nothing_is_written(run, tmp_path, rows, expected):
    path, output = write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    output.write_text("kept")
    error = refused(run.folder, input_file=path, output_file=output)
    assert all(word in error for word in expected), error
    assert output.read_text() == "kept"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"text": "x y", "batch_size": 0}, "`batch_size` is 0"),
        ({"text": "x y", "max_new_tokens": 0}, "`max_new_tokens` is 0"),
        ({"input_file": "no_such.csv"}, "`no_such.csv` does not exist"),
        ({"text": "x y", "output_file": "no/such/folder/out.jsonl"}, "`output_file`"),
    ],
)
def test_a_value_that_cannot_be_is_refused(run, values, expected):
    assert expected in refused(run.folder, **values)


def test_a_base_model_that_has_moved_can_be_given(run, tiny_llama, tmp_path):
    moved = shutil.copytree(run.folder, tmp_path / "run")
    task = json.loads((moved / "task.json").read_text()) | {"base_model": str(tmp_path / "gone")}
    (moved / "task.json").write_text(json.dumps(task))
    assert "`--base_model`" in refused(moved, text="What is cardiitis?")
    done = run_predict(moved, text=run.predictions[0]["source"], base_model=tiny_llama)
    assert json.loads(done.stdout)["prediction"] == run.predictions[0]["prediction"]


def test_another_base_model_is_refused_whatever_its_size(run, tiny_llama, tiny_gpt2, tmp_path):
    other = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tiny_llama))
    other.save_pretrained(tmp_path / "same-size")
    config = AutoConfig.from_pretrained(tiny_llama, hidden_size=32)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "smaller")
    for base in (tmp_path / "same-size", tmp_path / "smaller", tiny_gpt2):
        with pytest.raises(UserError, match="`--base_model`"):
            Predictor.from_pretrained(str(run.folder), base_model=str(base))
    earlier = shutil.copytree(run.folder, tmp_path / "run")
    task = json.loads((earlier / "task.json").read_text())
    del task["base_model_sha256"]  # as versions before wrote it: other sizes are still noticed
    (earlier / "task.json").write_text(json.dumps(task))
    for base in (tmp_path / "smaller", tiny_gpt2):
        with pytest.raises(UserError, match="`--base_model`"):
            Predictor.from_pretrained(str(earlier), base_model=str(base))


# ----- Weights that are not finite


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_weights_that_are_not_finite_are_refused(run, tmp_path, value):
    broken = shutil.copytree(run.folder, tmp_path / "run")
    weights = load_file(broken / "adapter_model.safetensors")
    next(iter(weights.values()))[0, 0] = value
    save_file(weights, broken / "adapter_model.safetensors")
    assert "`model`" in (error := refused(broken, text="What is cardiitis?")) and "not finite" in error


def test_scores_that_are_not_finite_are_no_answer(run):
    """Of finite weights, as where float16 overflows."""
    predictor = Predictor.from_pretrained(str(run.folder))
    predictor.model.get_output_embeddings().weight.data *= 3e38
    with pytest.raises(UserError, match="not finite"):
        predictor(["What is cardiitis?"])


def test_a_line_is_json_whatever_the_row_brings(run, tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text('{"id": NaN, "question": "What is cardiitis?"}\n')
    done = run_predict(run.folder, input_file=path, output_file=tmp_path / "out.jsonl")
    assert done.code in (0, 2)
    if done.code == 0:
        json.loads((tmp_path / "out.jsonl").read_text(), parse_constant=lambda name: pytest.fail(name))


# ----- Push and pull


@pytest.fixture(scope="module")
def hub_run(tiny_llama, data, tmp_path_factory):
    """A Hub, what starts scripts that reach it, and a run with its base model from there, which pushed its adapter."""
    folder = tmp_path_factory.mktemp("hub")
    with serve_hub() as hub, start_forks(folder, hub.env(folder / "home")) as online:
        hub.add_repo("org/base", tiny_llama)
        argv = qa_flags(
            "org/base", folder / "run", train_file=data.qa, answer_column="answer", save_strategy="steps",
            save_steps=1, push_to_hub=True, hub_model_id="tester/qa",
        )  # fmt: skip
        done = run_script(online, "run_qa_sft.py", argv)
        assert done.code == 0, done.stderr[-3000:]
        yield hub, online, done


def test_only_the_allow_list_was_pushed_privately_and_once(hub_run, data):
    hub, _, done = hub_run
    assert f"pushed to {hub.url}/tester/qa/commit/" in done.stderr
    assert hub.repos["tester/qa"].private and hub.commits == ["tester/qa"]
    names = set(hub.received)
    assert {"adapter_model.safetensors", "task.json", "README.md"} <= names
    assert all(name in PUBLISHED or name.startswith("plots/") for name in names)
    text = b"\n".join(hub.repos["tester/qa"].files.values()).decode("utf-8", "replace")
    assert not any(secret in text for secret in (*data.secrets, str(done.folder.parent)))


def test_a_pulled_adapter_answers_as_the_run_did(hub_run, tmp_path):
    hub, online, done = hub_run
    asked = [{"id": row["id"], "question": row["source"]} for row in done.predictions]
    path = write_rows(tmp_path / "in.jsonl", asked)
    argv = flags(model="tester/qa", input_file=path, output_file=tmp_path / "out.jsonl")
    pulled = run_script(online, "predict.py", argv)
    assert pulled.code == 0, pulled.stderr[-3000:]
    answers = read_jsonl(tmp_path / "out.jsonl")
    assert [a["id"] for a in answers] == [row["id"] for row in asked]
    assert [a["prediction"] for a in answers] == [row["prediction"] for row in done.predictions]
    assert hub.commits == ["tester/qa"]


def test_training_goes_on_from_an_adapter_on_the_hub(hub_run, data, tmp_path):
    _, online, first = hub_run
    argv = qa_flags("tester/qa", tmp_path / "run", train_file=data.qa, answer_column="answer", learning_rate=0)
    done = run_script(online, "run_qa_sft.py", argv)
    assert done.code == 0, done.stderr[-3000:]
    assert (done.task["base_model"], done.task["first_adapter"]) == ("org/base", "tester/qa")
    assert done.task["base_model_revision"] == first.task["base_model_revision"]
    for prefix in ("test", "first_adapter_test"):
        assert done.results[f"{prefix}_loss"] == pytest.approx(first.results["test_loss"], abs=1e-6)


def test_the_commit_of_the_base_model_is_kept_for_serving(hub_run):
    hub, _, done = hub_run
    assert done.task["base_model_revision"] in hub.repos["org/base"].commits


def test_a_token_that_may_not_push_stops_the_run_before_it_trains(hub_run, tiny_llama, data, tmp_path):
    hub, online, _ = hub_run
    before, commits = {*hub.repos}, [*hub.commits]
    argv = qa_flags(
        tiny_llama, tmp_path / "run", train_file=data.qa, answer_column="answer", push_to_hub=True,
        hub_model_id="tester/other",
    )  # fmt: skip
    done = run_script(online, "run_qa_sft.py", argv, env={"HF_TOKEN": "read-token"})
    assert done.code == 2 and "tester/other" in done.stderr and "HF_TOKEN" in done.stderr
    assert done.stderr.count("error: ") == 1 and "Traceback" not in done.stderr
    assert {*hub.repos} == before and hub.commits == commits and "read-token" not in done.stderr + done.stdout
    assert not (tmp_path / "run" / "adapter_model.safetensors").exists()


def test_answers_are_computed_in_the_precision_of_the_run(run):
    assert next(Predictor.from_pretrained(str(run.folder)).model.parameters()).dtype is torch.float32


# ----- Runs of an earlier version

EARLIER = [
    (
        {"task": "classification", "blend": {"prior": 0.5, "linear": 2.0}, "max_windows": 4, "long_texts": "windows"},
        {"task": "classification", "ensemble": {"prior": 0.5, "linear": 2.0}, "max_chunks": 4, "long_texts": "chunks"},
    ),
    (
        {"task": "summarization", "max_windows": 8, "long_texts": "head_tail", "text_template": "windows: {text}"},
        {"task": "summarization", "max_chunks": 8, "long_texts": "head_tail", "text_template": "windows: {text}"},
    ),
    (
        {"task": "hierarchical", "labels": ["blend", "windows"], "columns": {"text": "max_windows", "label": "blend"}},
        {"task": "hierarchical", "labels": ["blend", "windows"], "columns": {"text": "max_windows", "label": "blend"}},
    ),
    ({"task": "qa", "confidence": None}, {"task": "qa", "confidence": None}),
    ({}, {}),
]


@pytest.mark.parametrize(("earlier", "now"), EARLIER)
def test_a_task_of_an_earlier_version_gets_the_names_of_this_one_and_keeps_its_values_and_order(earlier, now):
    before = json.dumps(earlier)
    found = upgrade_task(earlier, {})
    raw = found.pop("raw_columns", None)
    assert found == now and list(found) == list(now) and (raw is None) == ("columns" not in earlier)
    assert json.dumps(earlier) == before  # what was given is not changed
    again = upgrade_task(now, {})
    assert upgrade_task(again, {"lowercase": True}) == again


@pytest.fixture(scope="module")
def classifier(tiny_bert, data, tmp_path_factory) -> Run:
    """A classifier that reads chunks and has a linear model beside it."""
    argv = flags(
        model_name_or_path=tiny_bert, output_dir=tmp_path_factory.mktemp("classes") / "run", train_file=data.notes,
        text_column="note", label_column="ward", use_cpu=True, bf16=False, dtype="float32", max_length=16,
        long_texts="chunks", max_chunks=3, ensemble="linear", max_steps=2, learning_rate=1e-3,
        near_duplicate_threshold=1.0, save_strategy="no", report_to="none",
    )  # fmt: skip
    done = run_here(run_classification.main, run_classification.ARGUMENTS, argv)
    assert done.code == 0, done.stderr
    return done


def test_a_classifier_of_an_earlier_version_answers_as_it_did(classifier, tmp_path):
    texts = [row["source"] for row in classifier.predictions]
    expected = Predictor.from_pretrained(str(classifier.folder))(texts)
    assert [answer["prediction"] for answer in expected] == [row["prediction"] for row in classifier.predictions]
    task = classifier.task
    task["blend"] = {part: task["ensemble"][part] for part in ("prior", "linear")}
    task["max_windows"], task["long_texts"] = task["max_chunks"], "windows"
    task = {key: task[key] for key in task if key not in ("ensemble", "max_chunks", "evaluation")}
    folder = shutil.copytree(classifier.folder, tmp_path / "run")
    (folder / "task.json").write_text(json.dumps(task))
    assert Predictor.from_pretrained(str(folder))(texts) == expected
