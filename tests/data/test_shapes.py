import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.arguments import UserError
from utils.data.__main__ import from_columns
from utils.data.questions import find_format
from utils.data.shapes import FORMATS, first_answer, join_paragraphs, squad_questions, to_columns

TEXT = st.text('abc {["é', min_size=1)
TURNS = [("system", "Be brief."), ("user", "I cough."), ("assistant", "How long?"), ("user", "A week."),
         ("assistant", "See a doctor.")]  # fmt: skip
ROW = {"system": "Be brief.", "history": ["I cough.", "How long?"], "question": "A week.", "answer": "See a doctor."}


def messages(turns):
    return [{"role": role, "content": text} for role, text in turns]


def from_value(turns):
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    return [{"from": names[role], "value": text} for role, text in turns]


def in_every_shape(turns):
    """One dialogue of an even number of turns after its system turn, in every shape that can hold it."""
    system, first = (turns[0][1], turns[1:]) if turns[0][0] == "system" else ("", turns)
    said = [text for _, text in first]
    history = [said[i : i + 2] for i in range(0, len(said) - 2, 2)]
    yield "messages", {"messages": messages(turns)}
    yield "messages", {"messages": json.dumps(messages(turns))}
    yield "messages", {"messages": from_value(turns)}
    yield (
        "messages",
        {"messages": [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns]},
    )
    yield "messages", {"messages": {"role": [role for role, _ in turns], "content": [text for _, text in turns]}}
    yield "sharegpt", {"conversations": from_value(turns)}
    yield "sharegpt", {"conversations": from_value(first), "system": system}
    yield "sharegpt", {"conversations": messages(turns)}
    yield "alpaca", {"instruction": said[-2], "input": "", "output": said[-1], "history": history, "system": system}
    yield "prompt_completion", {"prompt": messages(turns[:-1]), "completion": messages(turns[-1:])}
    yield "prompt_completion", {"prompt": messages(turns[:-1]), "completion": said[-1]}
    yield "preference", {"prompt": messages(turns[:-1]), "chosen": messages(turns[-1:]), "rejected": []}
    yield "preference", {"prompt": messages(turns[:-1]), "chosen": messages(turns)}
    yield "preference", {"chosen": messages(turns), "rejected": messages(turns)}
    if len(turns) == 2:
        yield "prompt_completion", {"prompt": said[0], "completion": said[1]}
        yield "preference", {"prompt": said[0], "chosen": said[1], "rejected": "no"}
        yield "preference", {"prompt": said[0], "chosen": messages(turns)}


def part(row):
    return {name: row[name] for name in ROW}


def test_a_dialogue_is_the_same_in_every_shape():
    for shape, row in in_every_shape(TURNS):
        assert part(to_columns(row, shape, "row 1")) == ROW, (shape, row)


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4), st.none() | TEXT.filter(lambda t: t == t.strip()))
def test_any_dialogue_is_the_same_in_every_shape(pairs, system):
    turns = [("system", system)] if system else []
    turns += [turn for user, reply in pairs for turn in (("user", user), ("assistant", reply))]
    rows = [part(to_columns(row, shape, "row 1")) for shape, row in in_every_shape(turns)]
    assert all(row == rows[0] for row in rows)
    texts = [*rows[0]["history"], rows[0]["question"], rows[0]["answer"]]
    assert texts == [text for pair in pairs for text in pair]


def test_a_dialogue_can_be_written_and_read_again():
    for shape, row in in_every_shape(TURNS):
        read = to_columns(row, shape, "row 1")
        written = from_columns({key: read[key] for key in (*ROW, "context") if key in read} | {"id": "a"}, shape)
        again = find_format(list(written), "f.jsonl")
        assert again == (shape if shape == "alpaca" else "messages") and written["id"] == "a"
        assert part(to_columns(written, again, "row 1")) == ROW


def test_columns_that_a_shape_does_not_name_are_kept():
    row = {"messages": messages(TURNS), "patient": "p1", "id": 3}
    assert to_columns(row, "messages", "row 1").items() >= {"patient": "p1", "id": 3}.items()
    for shape in FORMATS:  # a question alone, or a row that was read before
        assert to_columns({"question": "a", "history": ["b"]}, shape, "row 1") == {"question": "a", "history": ["b"]}
    assert to_columns({"instruction": "a", "output": "b"}, "alpaca", "row 1")["context"] is None
    assert to_columns({"instruction": "a", "input": "c", "output": "b"}, "alpaca", "row 1")["context"] == "c"


def test_a_dialogue_that_ends_with_the_user_has_no_answer():
    row = to_columns({"messages": messages(TURNS[:-1])}, "messages", "row 1")
    assert part(row) == ROW | {"answer": ""}
    assert to_columns({"prompt": "Why?"}, "prompt_completion", "row 1")["answer"] == ""
    assert to_columns({"instruction": "Why?"}, "alpaca", "row 1")["answer"] == ""


@pytest.mark.parametrize(
    "roles",
    [
        [], ["system"], ["assistant"], ["assistant", "user"], ["user", "user"], ["user", "assistant", "assistant"],
        ["system", "system", "user", "assistant"], ["user", "system", "assistant"], ["system", "assistant"],
    ],
)  # fmt: skip
def test_turns_that_do_not_alternate_are_told(roles):
    assert all(to_columns({"messages": none}, "messages", "row 1") is None for none in (None, "", [], "[]"))
    assert to_columns({"messages": messages([(role, "text") for role in roles])}, "messages", "row 1") is None


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "tool", "content": "secret"},
        {"from": "observation", "value": "secret"},
        {"from": "function_call", "value": "secret"},
        {"role": "nurse", "content": "secret"},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "secret"}}]},
        {"role": "assistant", "content": "secret", "reasoning_content": "secret"},
        {"role": "assistant", "content": "secret", "weight": 0},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "secret"}}]},
        {"role": "user", "content": {"secret": 1}},
        {"speaker": "user", "text": "secret"},
        "secret",
    ],
)
def test_what_is_no_turn_of_text_is_refused_by_row_without_its_text(turn):
    with pytest.raises(UserError, match="^row 3[:,].*`") as caught:
        to_columns({"messages": [*messages(TURNS), turn]}, "messages", "row 3")
    assert "secret" not in str(caught.value)


def test_empty_keys_of_tools_are_no_tools():
    """Arrow gives every turn the keys of all turns."""
    turns = [turn | {"tool_calls": None, "tool_call_id": None, "from": None, "weight": 1} for turn in messages(TURNS)]
    assert part(to_columns({"messages": turns, "tools": "[]"}, "messages", "row 1")) == ROW
    for name in ("tools", "images"):
        with pytest.raises(UserError, match=f"^row 1: `{name}`"):
            to_columns({"messages": turns, name: [{"name": "search"}]}, "messages", "row 1")


@pytest.mark.parametrize(
    ("shape", "row"),
    [
        ("messages", {"messages": "free text"}),
        ("messages", {"messages": {"role": ["user"], "content": []}}),
        ("sharegpt", {"conversations": {"from": "human", "value": "x"}}),
        ("alpaca", {"instruction": "x", "output": "y", "history": ["x", "y"]}),
        ("preference", {"prompt": "x", "chosen": messages([("user", "z"), ("assistant", "y")])}),
        ("prompt_completion", {"prompt": {"text": "x"}, "completion": "y"}),
    ],
)
def test_a_row_of_another_shape_is_refused(shape, row):
    with pytest.raises(UserError, match="^row 1: `"):
        to_columns(row, shape, "row 1")


# ----- Which shape a file has


@pytest.mark.parametrize("shape", FORMATS)
def test_a_file_is_known_by_its_columns(shape):
    assert find_format([*FORMATS[shape], "id", "input"], "f.jsonl") == shape


def test_a_file_of_two_shapes_is_refused_and_one_of_none_has_columns():
    with pytest.raises(UserError, match="`dataset_format`") as caught:
        find_format(["prompt", "chosen", "rejected", "messages"], "f.parquet")
    assert "preference" in str(caught.value) and "messages" in str(caught.value)
    assert find_format(["text", "label"], "f.csv") == "columns"


# ----- Cells


@pytest.mark.parametrize("as_json", [False, True])
def test_paragraphs_and_the_object_of_pubmedqa_are_a_text(as_json):
    write = json.dumps if as_json else lambda value: value
    assert join_paragraphs(write(["Part one.", "Two."])) == "Part one.\nTwo."
    written = write({"contexts": ["Part one.", "Two."], "labels": ["A", "B"], "meshes": []})
    assert join_paragraphs(written) == "Part one.\nTwo."


@pytest.mark.parametrize(
    "value",
    ["", None, "One.", 5, "[]", [1, 2], ["one", "word"], {"text": "x"}, "[1] is cited", '["a"', {"contexts": 1}],
)
def test_other_values_are_left_alone(value):
    assert join_paragraphs(value) == value and first_answer(value) == (value, False)


def test_the_answer_of_squad_is_its_first_text():
    assert first_answer({"text": ["rest", "bed rest"], "answer_start": [3, 9]}) == ("rest", True)
    assert first_answer('{"text": ["rest", "rest"], "answer_start": [3, 3]}') == ("rest", False)
    assert first_answer({"text": [], "answer_start": []}) == first_answer([]) == ("", False)
    assert first_answer(["rest"]) == first_answer([{"text": "rest", "answer_start": 3}]) == ("rest", False)
    assert first_answer('[{"text": "rest", "answer_start": 3}, {"text": "bed", "answer_start": 9}]') == ("rest", True)


def test_a_file_as_squad_publishes_it_has_a_row_per_question():
    parts = [
        {"context": "One.", "qas": [{"question": "a", "id": 1}, {"question": "b"}]},
        {"context": "Two.", "qas": []},
    ]
    rows = [{"title": "x", "paragraphs": parts}, {"question": "c", "paragraphs": ["Three."]}]
    assert list(squad_questions(rows)) == [
        {"context": "One.", "question": "a", "id": 1}, {"context": "One.", "question": "b"}, rows[1],
    ]  # fmt: skip


def test_a_list_in_alpacas_columns_is_refused():
    with pytest.raises(UserError, match="row 3.* list"):
        to_columns({"instruction": "Why?", "output": ["one answer", "another"]}, "alpaca", "row 3")
