"""What the page shows of an answer: marks at the right place, and nothing that a browser would run."""

import re
from html import escape

import pytest

from utils.serving.marking import (
    answer_html,
    describe_classes,
    draw_classes,
    list_findings,
    list_passages,
    mark_covered,
    mark_spans,
    notes_on,
    unrecognised_note,
    warn_of,
)

EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>'
FLAT = {
    "prediction": EVIL, "confidence": 0.9, "abstained": False, "cut": False,
    "probabilities": {EVIL: 0.9, "lung " * 40: 0.06, "lung " * 41: 0.04},
}  # fmt: skip
FLAT_TASK = {"abstention": {"max_risk": 0.05, "threshold": 0.8}}
PATH = {
    "prediction": ["heart", "valve"], "confidence": [0.9, 0.4], "shown": 1, "cut": True,
    "probabilities": [{"heart": 0.9, "lung": 0.1}, {"valve": 0.4, "wall": 0.35, "lobe": 0.25}],
}  # fmt: skip
PATH_TASK = {"abstention": {"max_risk": 0.05, "thresholds": [0.6, None]}}


def finding(start: int, end: int, **values) -> dict:
    return {
        "span": [start, end],
        "severity": 3,
        "message": "m",
        "kind": "dose",
        "source": "https://a.example",
    } | values


def marked(html: str) -> list[str]:
    return re.findall(r"<mark[^>]*>(.*?)</mark>", html)


def text_of(html: str) -> str:
    return re.sub(r"<[^>]*>", "", html)


def test_spans_are_marked_where_they_are():
    html = mark_spans("take 500 mg now", [finding(5, 11)], lambda f: f"level{f['severity']}")
    assert html == 'take <mark class="level3" title="m">500 mg</mark> now'


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([(0, 15), (5, 8)], ["500"]),  # the whole text says nothing of a place
        ([(0, 8), (5, 15)], ["take 500"]),
        ([(5, 8), (9, 11)], ["500", "mg"]),
        ([(0, 15)], ["take 500 mg now"]),
        ([], []),
    ],
)
def test_of_overlapping_spans_the_shorter_is_marked_and_no_text_is_lost(spans, expected):
    html = mark_spans("take 500 mg now", [finding(*span) for span in spans], lambda _: "x")
    assert marked(html) == expected and text_of(html) == "take 500 mg now"


def test_what_a_model_or_a_user_wrote_is_escaped_everywhere():
    html = [
        mark_spans(EVIL, [finding(3, 9, message=EVIL)], lambda _: "x"),
        mark_covered(EVIL, EVIL),
        list_findings([finding(0, 1, message=EVIL, kind=EVIL, source='" onclick="x')]),
        describe_classes(FLAT, FLAT_TASK),
        unrecognised_note([{"key": "medications", "value": EVIL}]),
    ]
    for text in html:
        assert "<script" not in text and "<img" not in text and 'onclick="x' not in text


def test_the_words_that_a_summary_uses_are_marked_in_its_source_and_stop_words_are_not():
    html = mark_covered("The knee hurts, and the fever is gone.", "The patient has knee pain that hurts.")
    assert marked(html) == ["knee", "hurts"] and text_of(html) == "The knee hurts, and the fever is gone."


def test_findings_are_listed_gravest_first_with_their_source():
    html = list_findings([finding(0, 1, severity=2, message="two"), finding(0, 1, severity=4, message="four")])
    assert html.index("four") < html.index("two") and html.count('href="https://a.example"') == 2
    assert "does not mean" in list_findings([])


def test_what_no_check_knows_of_a_patient_is_named():
    html = unrecognised_note([{"key": "medications", "value": "zorblax"}])
    assert "medications: zorblax" in html and unrecognised_note([]) == ""


def test_a_text_in_a_language_that_no_check_reads_is_not_called_clean():
    assert "does not mean" not in list_findings([], "de") and "(de)" in list_findings([], "de")
    both = list_findings([finding(0, 1, severity=4, message="four")], "de")
    assert "(de)" in both and "four" in both


@pytest.mark.parametrize(("severities", "warns"), [([], False), ([1, 2], False), ([2, 3], True), ([4], True)])
def test_a_serious_finding_stands_above_the_answer(severities, warns):
    html = warn_of([finding(0, 1, severity=severity) for severity in severities])
    assert ('role="alert"' in html and "Do not follow" in html) == warns == bool(html)


def test_the_passages_of_an_answer_are_listed_and_the_cited_ones_marked():
    passage = {"number": 1, "cited": False, "id": "a", "title": EVIL, "source": EVIL, "text": EVIL, "score": 1.0}
    html = list_passages({"passages": [passage, passage | {"number": 2, "cited": True, "title": "", "source": ""}]})
    assert marked(html) == ["[2] cited"] and html.index("[1]") < html.index("[2]")
    assert "<script" not in html and "<img" not in html and html.count("&lt;script") == 4
    assert "No passage" in list_passages({"passages": []}) and list_passages({}) == ""


def test_what_is_cut_or_not_ended_is_told():
    assert notes_on({"cut": False, "finished": True}) == ""
    html = notes_on({"cut": True, "finished": False, "confidence": 0.5, "confidence_note": "a mean of 0.50"})
    assert "only a part" in html and "not finished" in html and "0.50" in html


def test_a_class_that_is_sure_is_shown_with_what_its_probability_means():
    html = describe_classes(FLAT | {"prediction": "heart"}, FLAT_TASK)
    assert "<b>heart</b>" in html and "about 90 are right" in html and "human review" not in html


def test_a_class_that_is_unsure_is_for_a_person():
    html = describe_classes(FLAT | {"prediction": "heart", "abstained": True}, FLAT_TASK)
    assert "<b>heart</b>" not in html and "human review" in html and "5%" in html


def test_a_path_is_shown_down_to_where_it_is_sure():
    html = describe_classes(PATH, PATH_TASK)
    assert (
        "<b>heart</b>" in html
        and "<b>valve</b>" not in html
        and "finer class needs human review" in html
        and "only a part" in html
    )


def bars(html: str) -> list[list[tuple[str, str]]]:
    """Of each list the names and probabilities."""
    lists = re.findall(r'<ol class="bars">(.*?)</ol>', html)
    return [re.findall(r'<span>(.*?)</span> <span class="number">(.*?)</span>', own) for own in lists]


def test_there_is_a_list_of_bars_a_level_with_the_likeliest_on_top():
    html = draw_classes(PATH, PATH_TASK)
    assert bars(html) == [
        [("heart", "0.90"), ("lung", "0.10")],
        [("valve", "0.40"), ("wall", "0.35"), ("lobe", "0.25")],
    ]
    assert re.findall(r'class="predicted"><span>(\w+)', html) == ["heart", "valve"]
    assert set(re.findall(r'<line x1="([\d.]+)"', html)) == {"60.0"}  # the second level has no threshold
    assert re.findall(r'<rect width="([\d.]+)"', html) == ["90.0", "10.0", "40.0", "35.0", "25.0"]


def test_at_most_five_classes_are_drawn_and_their_names_are_whole_and_escaped():
    html = draw_classes(FLAT, FLAT_TASK)
    assert [name for name, _ in bars(html)[0]] == [escape(name) for name in FLAT["probabilities"]]
    many = {f"class {n}": 0.1 for n in range(9)}
    assert len(bars(draw_classes(FLAT | {"probabilities": many}, FLAT_TASK))[0]) == 5


def test_of_an_emergency_the_reply_is_an_alert_and_of_an_unchecked_answer_nothing_is_said_to_be_safe():
    answer = {"response": EVIL, "safety_report": None, "finished": True, "cut": False}
    assert "<script" not in answer_html(answer) and "does not mean" not in answer_html(answer)
    found = [finding(0, 1, where="question")]
    report = {"warnings": found, "unrecognised": [], "unread_language": None}
    html = answer_html(answer | {"safety_report": report})
    assert html.startswith('<div class="banner" role="alert">') and "<script" not in html


def test_the_labels_of_a_text_are_named_with_their_chances_and_none_is_said():
    found = {
        "prediction": ["<heart>", "eye"], "confidence": [0.81, 0.4], "cut": False,
        "probabilities": {"<heart>": 0.81, "eye": 0.4, "ear": 0.5},
    }  # fmt: skip
    task = {"problem_type": "multi_label_classification", "thresholds": [0.5, 0.3, 0.6]}
    html = describe_classes(found, task)
    assert "&lt;heart&gt;" in html and "about 81 have" in html and "about 40 have" in html and ">ear<" not in html
    html = draw_classes(found, task | {"labels": ["eye", "<heart>", "ear"]})
    assert re.findall(r'class="predicted"><span>(.*?)</span>', html) == ["&lt;heart&gt;", "eye"]
    assert re.findall(r'<line x1="([\d.]+)"', html) == ["30.0", "50.0", "60.0"]
    assert "human review" in describe_classes(found | {"prediction": [], "confidence": []}, task)
