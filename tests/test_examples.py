import json
import shutil
from functools import partial

import pytest
from conftest import flags, qa_flags, run_here, toy_exam, toy_rows, write_rows
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

import app
import predict
from run_qa_sft import ARGUMENTS, main
from utils.arguments import UserError
from utils.examples import FILE, Examples, example_texts
from utils.inference import Predictor
from utils.push import PUBLISHED
from utils.retrieval import Passage, Retriever
from utils.serving.answering import Question, answer_as_read, answer_from_passages, answer_here
from utils.serving.batching import make_metrics
from utils.shown_examples import load_examples

QUESTIONS = ["What is ataxia?", "What is gouty arthritis?", "What causes ataxia?", "How is arthritis treated?"]
ANSWERS = ["Loss of control.", "Crystals in a joint.", "A stroke.", "By rest."]


def test_the_most_similar_come_first_and_rows_of_the_same_cluster_never():
    examples = Examples(QUESTIONS, ANSWERS, clusters=[0, 1, 2, 1])
    assert examples.nearest(["What causes ataxia"], 2) == [[2, 0]]
    assert examples.nearest(["What causes ataxia"], 2, clusters=[2]) == [[0, 1]]
    assert examples.nearest(["Whooping cough?"], 2) == [[]]  # no word in common


@given(
    st.lists(st.lists(st.sampled_from(["gout", "ataxia", "rest", "joint", "of"]), min_size=1), min_size=1, max_size=9)
)
def test_no_row_sees_its_own_cluster_whatever_the_questions(words):
    questions = [" ".join(some) for some in words]
    clusters = [len(set(some)) for some in words]
    found = Examples(questions, questions, clusters).nearest(questions, 3, clusters)
    for cluster, numbers in zip(clusters, found, strict=True):
        assert len(numbers) <= 3 and cluster not in [clusters[number] for number in numbers]


def test_the_most_similar_example_stands_next_to_the_question_and_long_ones_are_counted(tiny_llama):
    tokenizer, examples = AutoTokenizer.from_pretrained(tiny_llama), Examples(QUESTIONS, ANSWERS)
    task = {"retrieve_examples": 2, "max_length": 200}
    (text,), counts = example_texts(["What causes ataxia?"], examples, task, tokenizer)
    assert text == "What is ataxia?\nLoss of control.\n\nWhat causes ataxia?\nA stroke."
    assert counts == {"rows_without_examples": 0, "examples_too_long": 0}
    (text,), counts = example_texts(["What causes ataxia?"], examples, task | {"max_length": 8}, tokenizer)
    assert text == "" and counts == {"rows_without_examples": 1, "examples_too_long": 2}


@pytest.fixture(scope="module")
def run(tiny_llama, tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    rows = write_rows(folder / "rows.jsonl", toy_rows())
    values = {"train_file": rows, "answer_column": "answer", "group_column": "document", "retrieve_examples": 2}
    done = run_here(main, ARGUMENTS, qa_flags(tiny_llama, folder / "run", max_length=400, **values))
    assert done.code == 0, done.stderr
    return done


def test_prompts_show_training_rows_of_other_groups_alone(run):
    outputs = json.loads((run.folder / "_private" / "outputs.json").read_text())
    known = [json.loads(line) for line in (run.folder / FILE).read_text().splitlines()]
    answers = {row["answer"] for row in known}
    assert len(known) == run.results["train_rows"]
    for split in ("validation", "test"):
        rows = outputs["rows"][split]
        for turns, reference, source in zip(rows["turns"], rows["reference"], rows["source"], strict=True):
            prompt = turns[-1]["content"]
            assert sum(answer in prompt for answer in answers) == 2 and reference not in prompt
            assert prompt.endswith(source) and not any(answer in source for answer in answers)


def test_predict_and_the_app_ask_with_the_same_examples_as_the_evaluation(run, tmp_path):
    rows = run.predictions
    predictor = Predictor.from_pretrained(str(run.folder))
    assert [found["prediction"] for found in predictor([row["source"] for row in rows])] == [
        row["prediction"] for row in rows
    ]
    results = {}

    def answer(questions, deliver):
        answer_here(predictor, questions, 4, deliver)

    questions = [Question(row["source"]) for row in rows[:4]]
    tokenizer, task = predictor.tokenizer, predictor.task
    answer_as_read(answer, task, tokenizer, predictor.examples, questions, results.__setitem__)
    assert [results[n]["response"] for n in range(4)] == [row["prediction"] for row in rows[:4]]


def test_passages_take_the_place_of_examples_and_without_any_the_app_asks_as_predict_does(run):
    predictor = Predictor.from_pretrained(str(run.folder))
    tokenizer, task = predictor.tokenizer, predictor.task
    source, (known, *_) = run.predictions[0]["source"], predictor.examples.answers
    asked = {}
    for name, text in (("none", "Nothing of the kind."), ("some", f"{source} {known}")):
        retriever = Retriever([Passage("p", "", "", text)])
        answer = partial(
            answer_from_passages,
            lambda own, deliver, name=name: asked.update({name: own[0]}),
            retriever,
            tokenizer,
            task,
        )
        answer_as_read(answer, task, tokenizer, predictor.examples, [Question(source)], print)
    assert asked["none"].text == source and asked["none"].examples
    assert text in asked["some"].text and not asked["some"].examples


def test_an_app_whose_model_a_server_hosts_downloads_no_weights(run, tiny_llama, monkeypatch):
    monkeypatch.setattr(app, "read_task", lambda *_: run.task)
    monkeypatch.setattr(app, "read_tokenizer", lambda *_: AutoTokenizer.from_pretrained(tiny_llama))
    monkeypatch.setattr("utils.task.snapshot_download", lambda *_, **__: pytest.fail("downloads the repository"))
    args = app.AppArguments(model=["lab/run"], backend="openai", base_url="http://127.0.0.1:9/v1")
    app.load("lab/run", args, make_metrics()).batcher.close()


def test_a_pushed_model_has_no_training_rows_and_takes_examples_of_ones_own(run, tmp_path, caplog):
    pulled = tmp_path / "pulled"
    pulled.mkdir()
    for pattern in PUBLISHED:
        for path in run.folder.glob(pattern):
            if path.is_file():
                shutil.copy(path, pulled / path.name)
    answers = [json.loads(line)["answer"] for line in (run.folder / FILE).read_text().splitlines()]
    texts = [path.read_text(errors="replace") for path in pulled.iterdir() if path.suffix in (".md", ".json", ".yaml")]
    assert not any(answer in text for answer in answers for text in texts)
    assert "--examples_file" in (pulled / "README.md").read_text()

    source = run.predictions[0]["source"]
    Predictor.from_pretrained(str(pulled))
    assert "--examples_file" in caplog.text
    argv = flags(model=pulled, text=source, examples_file=run.folder / FILE)
    done = run_here(lambda args, given: predict.main(args), (predict.PredictArguments,), argv)
    assert json.loads(done.stdout)["prediction"] == run.predictions[0]["prediction"]


@pytest.mark.parametrize("line", ["{", "[]", '{"question": "a"}', '{"question": "a", "answer": 1}', ""])
def test_a_file_that_has_no_examples_is_refused(tmp_path, line):
    (tmp_path / "own.jsonl").write_text(line)
    with pytest.raises(UserError, match="examples"):
        load_examples(tmp_path / "own.jsonl")


@pytest.mark.parametrize(
    "values",
    [
        {"retrieve_examples": -1},
        {"retrieve_examples": 1, "prompt_template": "{question}"},
        {"prompt_template": "{examples} {question}"},
    ],
)
def test_keys_that_contradict_each_other_are_refused(tiny_llama, data, tmp_path, values):
    argv = qa_flags(tiny_llama, tmp_path / "run", train_file=data.qa, answer_column="answer", **values)
    done = run_here(main, ARGUMENTS, argv)
    assert done.code == 2 and "`retrieve_examples`" in done.stderr


def test_examples_are_for_written_answers(tiny_llama, tmp_path):
    exam = write_rows(tmp_path / "exam.jsonl", toy_exam())
    values = {"options_column": "options", "answer_index_column": "answer_index", "retrieve_examples": 1}
    done = run_here(main, ARGUMENTS, qa_flags(tiny_llama, tmp_path / "run", train_file=exam, **values))
    assert done.code == 2 and "`options_column`" in done.stderr
