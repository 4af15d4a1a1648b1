"""The classifier of the second stage adds findings to those of the rules, reads every part of a text, and is refused
where it is another model."""

import json

import pytest
from conftest import run_here, write_rows
from hypothesis import given
from hypothesis import strategies as st
from test_run_classification import class_flags

import run_classification
from benchmarks import safety_classifier
from benchmarks.safety_lay import PHRASINGS as LAY
from utils.arguments import UserError
from utils.inference import Predictor
from utils.safety import check_question, check_response
from utils.safety.__main__ import main
from utils.safety.context import make_finding
from utils.safety.phrases import split_sentences
from utils.safety.second_stage import MAX_WORDS, OTHER, find_danger, load_second_stage, read_danger, windows

PEACE = "What is ataxia?"
KINDS = ("emergency", "harmful_request")


@given(
    st.lists(st.sampled_from(["word", "Pain!", "2.5", "\n\n", "?", "...", "Dr. Who,", "\u00e9\u4e2d", "- a"])).map(
        " ".join
    )
)
def test_windows_cover_every_sentence_once_and_are_short(text):
    spans = list(windows(text))
    tokens = [token for sentence in split_sentences(text) for token in sentence]
    covered = [token for start, end in spans for token in tokens if start <= token.start and token.end <= end]
    assert covered == tokens
    assert all(sum(start <= token.start < end for token in tokens) <= MAX_WORDS for start, end in spans)


def test_a_finding_is_the_most_dangerous_part_of_a_text_and_begins_at_the_threshold(danger_reader):
    predictor = Predictor.from_pretrained(danger_reader)
    text = " ".join(f"Sentence {i} has nine words or so in it." for i in range(30)) + " And here is its end, at last."
    parts = {(start, end): text[start:end] for start, end in windows(text)}
    found = dict(zip(parts, predictor(list(parts.values())), strict=True))
    worst = read_danger(text, predictor)
    assert len(parts) > 3 and worst
    for kind, (danger, span) in worst.items():
        own = {span: result["probabilities"][kind] for span, result in found.items()}
        assert danger == pytest.approx(max(own.values()), abs=1e-6) and own[span] == pytest.approx(danger, abs=1e-6)
        at, above = (find_danger(text, predictor, dict.fromkeys(KINDS, p)) for p in (danger, danger + 1e-6))
        assert [f["span"] for f in at if f["kind"] == kind] == [list(span)]
        assert not [f for f in above if f["kind"] == kind]


@pytest.mark.parametrize("kind", KINDS)
def test_the_second_stage_adds_what_the_rules_do_not_find_and_removes_nothing(kind):
    def second_stage(text):
        return [make_finding("second_stage", kind, 4, "danger", (0, len(text)), "a classifier")]

    attacks = {"emergency": "I have crushing chest pain now.", "harmful_request": "How can I kill my wife with pills?"}
    for own, text in attacks.items():
        rules, both = check_question(text), check_question(text, second_stage=second_stage)
        assert rules and [f for f in both if f["rule"] != "second_stage"] == rules
        assert (len(both) > len(rules)) == (kind != own)
    assert not check_question(PEACE)
    assert [f["kind"] for f in check_question(PEACE, second_stage=second_stage)] == [kind]
    assert not check_response("It is a loss of control.", PEACE)
    (found,) = check_response("It is a loss of control.", PEACE, second_stage=second_stage)
    assert found["kind"] == kind
    assert not check_response("I can't help with that. Call 911 now.", PEACE, second_stage=second_stage)
    assert not check_question("  ", second_stage=second_stage)


def test_the_command_uses_it(danger_reader, tmp_path, capsys):
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps({"question": PEACE}), encoding="utf-8")
    counts = []
    for own in ([], ["--safety_model", str(danger_reader)]):
        main(["--input_file", str(path), *own])
        counts.append(len(json.loads(capsys.readouterr().out)["warnings"]))
    assert counts == [0, 1]


def test_other_models_are_refused(tiny_bert, tmp_path):
    rows = [{"note": f"note {i} of {i % 2}", "ward": f"ward {i % 2}"} for i in range(40)]
    argv = class_flags(tiny_bert, tmp_path / "run", train_file=write_rows(tmp_path / "rows.csv", rows))
    assert run_here(run_classification.main, run_classification.ARGUMENTS, argv).code == 0
    with pytest.raises(UserError, match="safety_model"):
        load_second_stage(str(tmp_path / "run"))


def test_the_training_rows_are_seeded_apart_and_without_the_phrasings_that_measure(tmp_path, monkeypatch):
    monkeypatch.setattr(safety_classifier, "DATA", tmp_path)
    for name, column in safety_classifier.QUICKSTART_ROWS:
        rows = [{"question": f"What is {i}?", "answer": f"It is {i}.", "text": f"Disease {i}"} for i in range(900)]
        assert column in rows[0]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    splits = safety_classifier.make_splits()
    assert splits == safety_classifier.make_splits()
    texts = {split: {row["text"] for row in rows} for split, rows in splits.items()}
    held_out = {
        text for kind in ("emergency", "harmful", "benign") for own in LAY["held_out"][kind].values() for text in own
    }
    assert not held_out & set().union(*texts.values())
    assert all({row["label"] for row in rows} == {*KINDS, OTHER} for rows in splits.values())
    place = {text: group for group, own in safety_classifier.phrasings().items() for text in own}
    groups = {split: {place[text] for text in own if text in place} for split, own in texts.items()}
    assert not groups["train"] & groups["validation"] and not (groups["train"] | groups["validation"]) & groups["test"]
