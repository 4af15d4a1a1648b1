"""Retrieval: what is found, what the model is shown, and which passage an answer may cite."""

import json
from pathlib import Path

import bm25s
import numpy as np
import pytest
from conftest import CHATML, make_tokenizer, toy_rows, write_rows

from utils.arguments import UserError
from utils.chat import tokenize_pairs
from utils.citations import blank_citations, cite, find_support
from utils.prompts import build_prompt
from utils.retrieval import (
    NO_SUPPORT,
    PASSAGE_WORDS,
    Passage,
    Retriever,
    add_passages,
    build_question,
    cut_passages,
    read_corpus,
)

REAL_DATA = Path(__file__).parents[2] / "shared/data/medquad/medquad.jsonl"
HAY_FEVER = Passage(
    "h", "Hay fever", "Leaflet 3", "Hay fever is an allergy to pollen. Take 10 mg of cetirizine once a day."
)
GOUT = Passage("g", "Gout", "", "Gout is a painful swelling of the joints. Uric acid causes it.")
SCURVY = Passage("s", "Scurvy", "", "Scurvy comes from a lack of vitamin C.")
PASSAGES = [HAY_FEVER, GOUT, SCURVY]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    rows = [{"id": r["id"], "title": "", "source": "Toy", "text": r["answer"]} for r in toy_rows()]
    return write_rows(tmp_path / "corpus.csv", rows)


def test_each_toy_question_finds_its_own_answer_first(corpus: Path):
    retriever = Retriever.from_file(corpus)
    assert len(retriever.passages) == 120
    for row in toy_rows():
        best = retriever.search(row["question"], k=1)[0]
        assert (best.id, best.text, best.source) == (row["id"], row["answer"], "Toy") and best.score > 0


def test_passages_are_found_by_their_title():
    retriever = Retriever([SCURVY, Passage("x", "Beriberi", "", "It comes from a lack of thiamine.")])
    assert [p.id for p in retriever.search("What is beriberi?")] == ["x"]


def test_single_letters_and_numbers_are_words():
    found = Retriever([Passage(str(i), "", "", f"Vitamin {name}.") for i, name in enumerate("CDEK")])
    assert found.search("vitamin D", k=1)[0].id == "1"
    types = Retriever([Passage("1", "", "", "Type 1 diabetes."), Passage("2", "", "", "Type 2 diabetes.")])
    assert types.search("diabetes type 2", k=1)[0].id == "2"


def test_lay_words_find_clinical_ones():
    retriever = Retriever([Passage("a", "", "", "The abdomen is swollen."), GOUT])
    assert [p.id for p in retriever.search("my mother's belly")] == ["a"]


@pytest.mark.parametrize("question", ["", "   ", "what is it?", "zzyzx", "\U0001f912", "?!"])
def test_a_question_without_a_known_word_finds_nothing(question: str):
    assert Retriever(PASSAGES).search(question) == []


def test_search_gives_the_best_first_and_no_more_than_share_a_word():
    found = Retriever(PASSAGES).search("joints, uric acid, allergy", k=10)
    assert [p.id for p in found] == ["g", "h"] and found[0].score > found[1].score > 0
    assert len(Retriever(PASSAGES).search("joints, uric acid, allergy", k=1)) == 1


def test_scores_are_lucenes_bm25():
    retriever = Retriever([Passage("a", "", "", "fever fever cough"), Passage("b", "", "", "cough rash pain itch")])
    (found,) = retriever.search("fever")
    idf = np.log(1 + (2 - 1 + 0.5) / (1 + 0.5))
    expected = idf * 2 / (2 + 1.5 * (1 - 0.75 + 0.75 * 3 / 3.5))
    assert found.score == pytest.approx(expected, rel=1e-5)
    assert bm25s.__version__ == "0.3.16"


def test_equal_passages_come_in_their_order():
    twins = [Passage(str(i), "", "", "Gout hurts.") for i in range(20)]
    assert [p.id for p in Retriever(twins).search("gout", k=20)] == [str(i) for i in range(20)]


# ----- Corpus


def test_a_corpus_needs_no_column_but_text(tmp_path: Path):
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"text": "Gout hurts."}\n{"text": "Hay fever itches.", "title": null}\n', encoding="utf-8")
    first, second = Retriever.from_file(path).passages
    assert first == Passage("1", "", "", "Gout hurts.") and second == Passage("2", "", "", "Hay fever itches.")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"txt": "Gout."}\n', "row 1 has no column `text`"),
        ('{"text": "Gout."}\n{"text": " ..."}\n', "row 2: `text` has no words"),
        ('{"text": null}\n', "row 1: `text` has no words"),
        ("", "has no rows"),
    ],
)
def test_a_corpus_that_cannot_be_used_is_named_in_one_line(tmp_path: Path, content: str, said: str):
    path = tmp_path / "corpus.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match="corpus.jsonl") as caught:
        Retriever.from_file(path)
    assert said in str(caught.value) and "Gout" not in str(caught.value)


def test_passages_keep_every_word_in_order_and_end_with_sentences():
    sentences = [f"Sentence {i} has {' '.join(['word'] * (i % 9))} end." for i in range(80)]
    text = "\n  ".join(sentences)
    passages = cut_passages(text, 40)
    assert " ".join(passages).split() == text.split()
    assert len(passages) > 10 and all(len(p.split()) <= 40 and p.endswith("end.") for p in passages)


def test_a_sentence_longer_than_a_passage_is_cut():
    text = " ".join(f"w{i}" for i in range(95)) + ". Short one."
    passages = cut_passages(text, 30)
    assert " ".join(passages) == text and [len(p.split()) for p in passages] == [30, 30, 30, 7]


def test_parts_of_a_document_share_its_id_title_and_source(tmp_path: Path):
    text = " ".join(f"Part {i} is about nothing else." for i in range(100))
    path = write_rows(tmp_path / "c.jsonl", [{"id": 7, "title": "T", "source": "S", "text": text}])
    passages = Retriever.from_file(path).passages
    assert len(passages) >= 600 / PASSAGE_WORDS
    assert {(p.id, p.title, p.source) for p in passages} == {("7", "T", "S")}


# ----- Prompt


def test_the_prompt_numbers_passages_with_their_source_before_the_question():
    text, shown = build_question("What helps?", [HAY_FEVER, GOUT], lambda _: True)
    assert shown == [HAY_FEVER, GOUT]
    places = [text.index(part) for part in ("[1] Hay fever (Leaflet 3): Hay", "[2] Gout: Gout", "cite", NO_SUPPORT)]
    assert places == sorted(places) and text.endswith("\n\nWhat helps?")


def test_only_the_first_passages_that_fit_are_shown():
    whole, _ = build_question("Why?", PASSAGES, lambda _: True)
    text, shown = build_question("Why?", PASSAGES, lambda text: len(text) < len(whole))
    assert shown == PASSAGES[:2] and SCURVY.text not in text and GOUT.text in text
    assert build_question("Why?", PASSAGES, lambda _: False) == ("Why?", [])
    assert build_question("Why?", [], lambda _: True) == ("Why?", [])


def test_braces_in_texts_are_texts():
    text, _ = build_question("What is {this}?", [GOUT._replace(text="A {0} set {x}.")], lambda _: True)
    assert "A {0} set {x}." in text and text.endswith("What is {this}?")


@pytest.mark.parametrize("chat", [True, False])
def test_rows_get_as_many_passages_as_the_models_length_allows(chat: bool):
    tokenizer = make_tokenizer(["<|im_start|>", "<|im_end|>"], "<|im_end|>", CHATML)
    columns = {"question": "asked", "context": None, "options": None, "answer": None, "answer_index": None}
    task = {"columns": columns, "chat": chat, "system_prompt": None, "prompt_template": "{asked}", "max_length": 10**6}
    rows = [{"id": 1, "asked": "gout, allergy, vitamin"}, {"id": 2, "asked": "zzyzx"}]
    retriever = Retriever(PASSAGES)
    new_rows, shown = add_passages(rows, retriever, 3, tokenizer, task)
    assert [len(passages) for passages in shown] == [3, 0] and [row["id"] for row in new_rows] == [1, 2]
    assert new_rows[1] == rows[1] and new_rows[0]["asked"].endswith("gout, allergy, vitamin")
    assert shown[0] == retriever.search(rows[0]["asked"], 3)

    prompt = build_prompt(tokenizer, task, new_rows[0])
    length = len(tokenize_pairs(tokenizer, [prompt], None, chat)[0][0])
    for most, expected in ((length + 1, 3), (length, 2), (5, 0)):
        _, shown = add_passages(rows, retriever, 3, tokenizer, task | {"max_length": most})
        assert len(shown[0]) == expected


# ----- Support


def test_a_sentence_is_supported_by_the_passage_that_holds_its_words():
    answer = "Uric acid causes gout. Hay fever is an allergy to pollen."
    plain, claims = find_support(answer, PASSAGES)
    assert plain == answer and [claim.passage for claim in claims] == [2, 1]
    assert [plain[c.start : c.end] for c in claims] == ["Uric acid causes gout.", "Hay fever is an allergy to pollen."]
    assert [claim.overlap for claim in claims] == [1.0, 1.0]


@pytest.mark.parametrize(
    "sentence",
    [
        "Take 20 mg of cetirizine once a day.",  # another number
        "Take 10 mg of loratadine once a day.",  # another drug
        "Hay fever is not an allergy to pollen.",  # turned round
        "Bones break easily in old age.",  # none of its words
    ],
)
def test_a_sentence_that_says_something_else_is_not_supported(sentence: str):
    (claim,) = find_support(sentence, PASSAGES)[1]
    assert claim.passage is None
    assert cite(sentence, PASSAGES)["prediction"] == f"{sentence[:-1]} [{NO_SUPPORT}]."


def test_the_words_of_a_title_claim_nothing():
    passage = GOUT._replace(title="Lesch-Nyhan syndrome of newborn boys")
    (claim,) = find_support("Lesch-Nyhan syndrome of newborn boys shows in crystals.", [passage])[1]
    assert claim.passage is None and claim.overlap == 0.0


def test_a_question_in_an_answer_is_no_claim():
    plain, claims = find_support("What causes gout? Uric acid causes gout.", PASSAGES)
    assert [plain[c.start : c.end] for c in claims] == ["Uric acid causes gout."]


def test_citations_are_read_before_and_after_the_full_stop():
    answer = (
        "Uric acid causes gout [2]. Hay fever is an allergy to pollen. [1, 3] It comes from a lack of vitamin C[3]"
    )
    plain, claims = find_support(answer, PASSAGES)
    assert "[" not in plain and [claim.cited for claim in claims] == [(2,), (1, 3), (3,)]
    assert [claim.passage for claim in claims] == [2, 1, 3]


def test_wrong_citations_are_counted_and_put_right():
    done = cite("Uric acid causes gout [1]. Hay fever is an allergy to pollen [1][9].", PASSAGES)
    assert done["prediction"] == "Uric acid causes gout [2]. Hay fever is an allergy to pollen [1]."
    assert done["wrong_citations"] == 2 and done["supported"] == 1.0
    assert [p["number"] for p in done["passages"]] == [1, 2, 3]
    assert [p["cited"] for p in done["passages"]] == [True, True, False]
    assert [p["text"] for p in done["passages"]] == [passage.text for passage in PASSAGES]
    json.dumps(done)


def test_of_two_that_support_the_cited_one_is_kept():
    twins = [GOUT, GOUT._replace(id="t", source="Another")]
    assert find_support("Uric acid causes gout [2].", twins)[1][0].passage == 2
    assert find_support("Uric acid causes gout.", twins)[1][0].passage == 1


def test_the_share_of_supported_sentences():
    done = cite("Uric acid causes gout. Bones break easily in old age.", PASSAGES)
    assert done["supported"] == 0.5
    assert done["prediction"] == f"Uric acid causes gout [2]. Bones break easily in old age [{NO_SUPPORT}]."


@pytest.mark.parametrize("answer", ["", "   ", "...", "No passage supports this.", f"{NO_SUPPORT} [1]"])
def test_an_answer_that_claims_nothing_has_no_support_to_count(answer: str):
    done = cite(answer, PASSAGES)
    assert done["supported"] is None and "[" not in done["prediction"]


def test_without_passages_nothing_is_supported():
    assert cite("Gout hurts.", [])["prediction"] == f"Gout hurts [{NO_SUPPORT}]."


def test_citations_can_be_blanked_and_nothing_else_moves():
    cited = cite("Uric acid causes gout. Bones break [in old age].", PASSAGES)["prediction"]
    blank = blank_citations(cited)
    assert len(blank) == len(cited) and NO_SUPPORT not in blank and "[2]" not in blank and "[in old age]" in blank
    assert blank.index("Bones") == cited.index("Bones")


# ----- For a model

QA = {"task": "qa", "columns": {"question": "question", "options": None}, "max_length": 256}


@pytest.mark.parametrize(("max_length", "longest"), [(256, 32), (4096, PASSAGE_WORDS), (4, 1)])
def test_passages_are_as_short_as_the_models_input_asks_for(tmp_path: Path, max_length: int, longest: int):
    path = write_rows(tmp_path / "c.jsonl", [{"text": " ".join(f"word{i}" for i in range(1000))}])
    passages = read_corpus(path, QA | {"max_length": max_length}).passages
    assert max(len(p.text.split()) for p in passages) == longest


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (QA | {"task": "summarization"}, "is of task summarization"),
        (QA | {"columns": {"question": "question", "options": "options"}}, "chooses among options"),
    ],
)
def test_a_model_that_writes_no_answers_takes_no_corpus(corpus: Path, task: dict, said: str):
    with pytest.raises(UserError, match="`corpus_file`.*" + said):
        read_corpus(corpus, task)


@pytest.mark.real_data
@pytest.mark.skipif(not REAL_DATA.exists(), reason="the shared data sets are absent")
def test_medquad_sentences_support_themselves():
    with REAL_DATA.open(encoding="utf-8") as stream:
        answers = [json.loads(next(stream))["answer"] for _ in range(60)]
    for answer in answers[::3]:
        for passage in cut_passages(answer)[:2]:
            plain, claims = find_support(passage, [Passage("", "", "", passage)])
            assert plain == passage and all(claim.overlap == 1.0 for claim in claims)


def test_passages_of_a_script_without_spaces_are_cut_found_and_cited():
    gout = "痛风是关节的疼痛和肿胀。尿酸升高引起痛风。"
    scurvy = "坏血病是缺乏维生素C引起的。牙龈容易出血。"
    assert cut_passages(gout + scurvy, 16) == [gout, scurvy]
    assert max(map(len, cut_passages("关节疼痛" * 200, 10))) <= 20
    retriever = Retriever([Passage("g", "", "", gout), Passage("s", "", "", scurvy)])
    assert [retriever.search(question, k=1)[0].id for question in ("什么引起坏血病？", "痛风有什么表现？")] == [
        "s",
        "g",
    ]
    cited = cite("坏血病是缺乏维生素C引起的。您发热吗？关节镜检查正常。", retriever.passages)
    assert (
        cited["prediction"] == "坏血病是缺乏维生素C引起的 [2]。您发热吗？关节镜检查正常 [no passage supports this]。"
    )
