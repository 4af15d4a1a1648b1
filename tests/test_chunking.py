import random

import pytest
from conftest import toy_dialogues
from transformers import AutoTokenizer

from utils.arguments import UserError
from utils.chunking import SENTENCES, cut_sources, split_summary
from utils.evaluation.summaries import join_summaries

COLUMNS = {"text": "dialogue", "summary": "note"}
NOTES = [row["note"] for row in toy_dialogues()[:5]]


@pytest.fixture(scope="module", params=["tiny_t5", "tiny_encoder_decoder"])
def tokenizer(request):
    return AutoTokenizer.from_pretrained(request.getfixturevalue(request.param))


@pytest.fixture(scope="module")
def rows():
    """Dialogues, one of a thousand turns, one of a single word of 20,000 letters, one with no line break."""
    rows = [{"dialogue": row["dialogue"]} for row in toy_dialogues()[:20]]
    turns = [turn for row in toy_dialogues() for turn in row["dialogue"].split("\n")]
    rows += [{"dialogue": "\n".join(turns[:1000])}, {"dialogue": "fever" * 4000}, {"dialogue": " ".join(turns[:300])}]
    return rows


def task(how: str, **values) -> dict:
    template = "Summarize, please: {text} Note:"
    return {
        "columns": COLUMNS, "text_template": template, "max_source_length": 64, "long_texts": how, "max_chunks": 100,
    } | values  # fmt: skip


def inner(piece: str) -> str:
    assert piece.startswith("Summarize, please:") and piece.endswith("Note:")
    return piece.removeprefix("Summarize, please:").removesuffix("Note:")


@pytest.mark.parametrize("how", ["head", "head_tail", "chunks"])
def test_every_piece_fits_and_holds_the_whole_template(tokenizer, rows, how):
    chunks, lost = cut_sources(tokenizer, rows, task(how))
    assert len(chunks) == len(lost) == len(rows)
    for row, own, missing in zip(rows, chunks, lost, strict=True):
        for piece in own:
            assert inner(piece).strip()
            assert len(tokenizer(piece)["input_ids"]) <= 64
        whole = len(own) == 1 and inner(own[0]).split() == row["dialogue"].split()
        assert whole == (missing == 0) or how == "chunks"


def test_windows_hold_every_word_once_and_in_order(tokenizer, rows):
    chunks, lost = cut_sources(tokenizer, rows, task("chunks", max_chunks=10**6))
    assert lost == [0] * len(rows)
    for row, own in zip(rows, chunks, strict=True):
        assert "".join("".join(map(inner, own)).split()) == "".join(row["dialogue"].split())
    assert max(map(len, chunks)) > 50


def test_windows_end_with_a_turn_where_that_leaves_them_half_full(tokenizer, rows):
    (own,), _ = cut_sources(tokenizer, [rows[20]], task("chunks"))
    assert all(inner(piece).strip().startswith(("Doctor:", "Patient:")) for piece in own)


def test_what_is_left_out_is_counted_in_tokens(tokenizer, rows):
    (few,), (lost,) = cut_sources(tokenizer, rows[20:21], task("chunks", max_chunks=3))
    (every,), _ = cut_sources(tokenizer, rows[20:21], task("chunks", max_chunks=10**6))
    assert few == every[:3]
    missing = sum(len(tokenizer(inner(p).strip(), add_special_tokens=False)["input_ids"]) for p in every[3:])
    assert lost == pytest.approx(missing, rel=0.05)


def test_head_and_tail_are_the_beginning_and_the_end(tokenizer, rows):
    (own,), _ = cut_sources(tokenizer, rows[20:21], task("head_tail"))
    (head,), _ = cut_sources(tokenizer, rows[20:21], task("head"))
    text, words = " ".join(rows[20]["dialogue"].split()), inner(own[0]).split()
    assert text.startswith(" ".join(inner(head[0]).split()))
    start = next(n for n in range(len(words), 0, -1) if text.startswith(" ".join(words[:n])))
    assert text.endswith(" ".join(words[start:])) and 0.15 < start / len(words) < 0.4


def test_a_template_that_fills_the_model_is_refused(tokenizer, rows):
    with pytest.raises(UserError, match="`max_source_length` is 16 .*`text_template`"):
        cut_sources(
            tokenizer, rows, task("head", text_template="a b c d e f g h i j k l m n o p {text}", max_source_length=16)
        )


# ----- Summaries of chunks


def test_sentences_are_all_of_a_text():
    rng = random.Random(1)
    parts = [
        "Dose 0.5 mg b.i.d.",
        " No fever!",
        "\n",
        "Is it 3.5?",
        "   ",
        "Plan: rest",
        "\n\n",
        " e.g. none ...",
        ".",
    ]
    for _ in range(300):
        text = "".join(rng.choices(parts, k=rng.randrange(1, 8)))
        assert "".join(SENTENCES.findall(text)).rstrip() == text.rstrip()
    assert SENTENCES.findall("Takes 0.5 mg. No rash.\nRest") == ["Takes 0.5 mg.", " No rash.", "\nRest"]


def test_a_sentence_goes_to_the_window_that_it_is_about():
    chunks = ["Patient: I have a fever since Monday.", "Doctor: Take the tablets twice.", "Patient: Thank you, bye."]
    summary = "Fever since Monday. Tablets twice."
    assert split_summary(summary, chunks) == ["Fever since Monday.", "Tablets twice.", ""]
    assert split_summary(summary, chunks[:1]) == [summary]


def test_no_sentence_is_lost_when_a_summary_is_split():
    chunks = [row["dialogue"] for row in toy_dialogues()[:5]]
    summary = " ".join(NOTES)
    parts = split_summary(summary, chunks)
    assert sorted(" ".join(parts).split()) == sorted(summary.split())


def test_joined_summaries_say_nothing_twice():
    first, second = "Has a fever. No rash.", "no  rash. Takes 5 mg. Takes 5 mg."
    assert join_summaries([first, second, first]) == "Has a fever. No rash. Takes 5 mg."
    assert join_summaries(["CC: fever\nPlan: rest", "Plan: rest\nCC: rash"]) == "CC: fever\nPlan: rest\nCC: rash"
    assert join_summaries(["", "No rash."]) == "No rash." and join_summaries(["", ""]) == ""
    assert join_summaries(["Takes 5 mg. < 7", "> 7"]) == "Takes 5 mg. < 7 > 7"


def test_sentences_of_other_scripts_end_without_a_space():
    chinese = "患者发热三天。没有胸痛！是否咳嗽？（有。）复查。"
    assert SENTENCES.findall(chinese) == ["患者发热三天。", "没有胸痛！", "是否咳嗽？", "（有。）", "复查。"]
    assert SENTENCES.findall("मरीज को बुखार है। खांसी नहीं") == ["मरीज को बुखार है।", " खांसी नहीं"]
    assert SENTENCES.findall("هل تشعر بألم؟ نعم۔") == ["هل تشعر بألم؟", " نعم۔"]
    chunks = ["医生问咳嗽，患者咳嗽。", "患者发热三天，体温很高。"]
    assert split_summary("发热三天。有咳嗽。", chunks) == ["有咳嗽。", "发热三天。"]
    assert join_summaries(["有咳嗽。发热。", "发热。胸痛。"]) == "有咳嗽。发热。 胸痛。"
