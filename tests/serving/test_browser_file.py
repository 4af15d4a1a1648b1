"""Classification of a csv file in a real browser: bounded requests, every row accounted for, files safe to open."""

import csv
import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_app import runs  # noqa: F401  a fixture
from test_browser import (  # noqa: F401  fixtures
    CHROMIUM,
    PHONE,
    answered,
    browser,
    choose,
    downloaded,
    open_page,
    open_tab,
    page,
    table_of,
    url,
)

from utils.serving.page import page_html

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


def test_a_file_is_classified_in_bounded_requests_and_no_row_is_lost(page):  # noqa: F811
    organs = ["heart", "kidney stone", "pollen"]
    texts = [f'Patient {n}: "{organs[n % 3]}", {"fever " * (n % 5)}' for n in range(40)] + ["", "é" * 49_999] * 5
    content = io.StringIO()
    rows = [{"=cmd": "@SUM(1)", "note": text, "prediction": f"-{n}"} for n, text in enumerate(texts)]
    writer = csv.DictWriter(content, ["=cmd", "note", "prediction"], delimiter=";")
    writer.writeheader()
    writer.writerows(rows)
    asked = []
    page.on(
        "request", lambda r: asked.append((r.post_data_json, len(r.post_data_buffer))) if "classify" in r.url else 0
    )
    panel = open_tab(page, "Classify a file")
    choose(page, content.getvalue())
    panel.get_by_label("Model").select_option(label="second (classification)")
    panel.get_by_label("Column of the texts").select_option("note")
    panel.get_by_role("button", name="Classify the file").click()
    panel.get_by_text("45 of 50 rows are classified, 5 failed.").wait_for()
    assert len(asked) > 3 and all(len(body["texts"]) <= 16 and size < 500_000 for body, size in asked)
    assert panel.get_by_role("progressbar").evaluate("e => e.value === e.max")
    assert "50 of 50 rows, 5 failed" in panel.inner_text() and panel.get_by_role("cell", name="41").is_visible()
    table = table_of(downloaded(page, panel, "Download csv"))
    expected = page.request.post(f"{page.url}classify", data={"texts": texts[:40], "top_k": 3}).json()["results"]
    for n, row in enumerate(table):
        assert (row["'=cmd"], row["note"], row["prediction"]) == ("'@SUM(1)", texts[n], f"'-{n}")
        assert row["row"] == str(n + 1) and row["model"] == "second"
        if n < 40:
            assert row["prediction_"] == expected[n]["prediction"] and row["error"] == ""
            assert float(row["confidence"]) == pytest.approx(expected[n]["confidence"], abs=1e-4)
    assert [row["row"] for row in table if row["error"]] == ["41", "43", "45", "47", "49"] and len(table) == len(texts)
    raw = json.loads(downloaded(page, panel, "Download json"))
    assert raw[0]["input"] == rows[0] and set(expected[0]) <= set(raw[0]) and "error" in raw[40]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("", "empty"), ("\n \n", "empty"), ("text\n", "one row"), ("a,a\n1,2\n", "`a`"),
        ("id,text\n1,x\n2\n", "Row 2 has 1 cells"), ("id,text\n1,x\n2,y,z\n", "Row 2 has 3 cells"),
        ('id,text\n1,"x\n2,y\n', "Row 1 opens"), ('id,text\n1,"x"y\n', "Row 1 has text after"),
        (b"text\n\xe9\n", "UTF-8"), ("text\nx\n".encode("utf-16"), "UTF-8"), (b"PK\x03\x04", "spreadsheet"),
        ("text\n" + "x\n" * 10_001, "10001 rows"),
        (f"id,text\n1,x\n2,{'x' * 50_001}\n", "Row 2, column `text` has 50001"),
    ],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_a_bad_file_is_refused_before_a_request_with_its_row_or_column(files, content, named):
    page, asked = files  # noqa: F811
    choose(page, content)
    page.get_by_role("button", name="Classify the file").click()
    alert = page.get_by_role("alert").filter(visible=True)
    alert.wait_for()
    assert named in alert.inner_text() and asked == [] and "\n" not in alert.inner_text()


@pytest.fixture(scope="module")
def files(browser, url):  # noqa: F811
    """The tab for files, and what it asked the server for."""
    context, asked = browser.new_context(viewport=PHONE), []
    page = open_page(context, url)  # noqa: F811
    open_tab(page, "Classify a file")
    page.on("request", lambda request: asked.append(request.url))
    yield page, asked
    context.close()


def test_a_busy_server_is_asked_again_and_only_faulty_rows_fail(page):  # noqa: F811
    tries = []

    def answer(route) -> None:
        body = route.request.post_data_json
        tries.append(len(body["texts"]))
        if len(tries) == 1:
            return route.fulfill(status=429, headers={"Retry-After": "0.01"}, json={"detail": "the queue is full"})
        if "bad" in body["texts"]:
            return route.fulfill(status=422, json={"detail": [{"loc": ["body", "texts", 0], "msg": "is wrong"}]})
        return route.continue_()

    page.route("**/classify", answer)
    panel = open_tab(page, "Classify a file")
    choose(page, "text\r\nheart\r\nbad\r\n\r\nkidney\r\n")
    panel.get_by_role("button", name="Classify the file").click()
    panel.get_by_text("2 of 4 rows are classified, 2 failed.").wait_for()
    assert tries == [3, 3, 1, 1, 1]
    assert [row["error"] for row in table_of(downloaded(page, panel, "Download csv"))] == [
        "", "texts, 0: is wrong", "the text is empty", "",
    ]  # fmt: skip


def test_a_file_can_be_stopped_and_what_was_not_asked_is_listed(page):  # noqa: F811
    page.route("**/classify", lambda route: None if "last" in route.request.post_data else route.continue_())
    panel = open_tab(page, "Classify a file")
    choose(page, "text\n" + "heart\n" * 16 + "last\n" * 3)
    panel.get_by_role("button", name="Classify the file").click()
    panel.get_by_text("16 of 19 rows, 0 failed").wait_for()
    panel.get_by_role("button", name="Stop").click()
    panel.get_by_text("16 of 19 rows are classified, 3 failed.").wait_for()
    assert sum("stopped" in row["error"] for row in table_of(downloaded(page, panel, "Download csv"))) == 3


def test_a_huge_file_is_refused_unread(files):
    page, asked = files  # noqa: F811
    page.evaluate("""() => {
        const chosen = new DataTransfer(), box = document.querySelector("input[type=file]");
        chosen.items.add(new File([new Uint8Array(20_000_001)], "rows.csv"));
        box.files = chosen.files;
        box.dispatchEvent(new Event("change"));
    }""")
    page.get_by_role("alert").filter(has_text="20.0 MB").wait_for()
    assert asked == []


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
CELLS |= st.sampled_from(
    ["=1", "+1", "-1", "@a", "\t=1", " =1", "＝1", 'a"b', "a,b", "a;b", "a\nb", "a\r\nb", "'", ""]
)


@settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=4))
def test_what_is_written_is_read_again_here_and_elsewhere_and_runs_nowhere(files, rows):
    page, _ = files  # noqa: F811
    script = """async (rows) => {
        const { parse, write } = await import(new URL("static/csv.js", document.baseURI));
        const text = write(["first", "second"], rows);
        return [text, parse(text)];
    }"""
    text, read = page.evaluate(script, [list(row) for row in rows])
    assert [tuple(row) for row in read["rows"]] == [tuple(row) for row in csv.reader(io.StringIO(text, newline=""))][
        1:
    ]
    for row, original in zip(read["rows"], rows, strict=True):
        for cell, own in zip(row, original, strict=True):
            assert cell in (own, f"'{own}") and cell.strip()[:1] not in set("=+-@\uff1d\uff0b\uff0d\uff20")


# ----- Models that read several columns


@pytest.fixture
def columns(browser, url):  # noqa: F811
    """The page of a model that reads two columns, and one that reads a text; `asked` has the requests."""
    tasks = {
        "both": {"task": "classification", "raw_columns": {"parts": ["title", "body"], "input": "text"}},
        "one": {"task": "classification", "raw_columns": {"parts": [], "input": "note"}},
    }
    result = {"prediction": "a", "confidence": 0.9, "abstained": False, "cut": False, "probabilities": {"a": 0.9}}
    context, asked = browser.new_context(viewport=PHONE), []

    def answer(route) -> None:
        asked.append(route.request.post_data_json)
        answer = {"results": [result] * len(asked[-1].get("texts", [0])), "inference_time_ms": 1}
        route.fulfill(json={"answer": answer, "html": "<p>a</p>"} if "/page/" in route.request.url else answer)

    context.route(f"{url}/", lambda route: route.fulfill(content_type="text/html", body=page_html(tasks, "", False)))
    context.route("**/classify", answer)
    page = open_page(context, url)  # noqa: F811
    page.asked = asked
    yield page
    context.close()


def test_each_model_is_sent_the_columns_that_it_reads(columns):
    assert columns.get_by_role("tab").all_inner_texts() == ["Classify", "Classify a file", "History"]
    panel = open_tab(columns, "Classify")
    for label, text in (("title", "T"), ("body", "B")):
        panel.get_by_label(label, exact=True).fill(text)
    panel.get_by_role("button", name="Classify", exact=True).click()
    panel.get_by_role("alert").filter(has_text="empty").wait_for()  # the text of the other model
    panel.get_by_role("checkbox", name="one").uncheck()
    panel.get_by_role("button", name="Classify", exact=True).click()
    panel.get_by_role("button", name="Download json").wait_for()
    assert [(body["model"], body["text"]) for body in columns.asked] == [("both", {"title": "T", "body": "B"})]
    (row,) = table_of(downloaded(columns, panel, "Download csv"))
    assert row == {"title": "T", "body": "B", "model": "both", "prediction": "a", "confidence": "0.9",
                   "needs_review": "false", "cut": "false"}  # fmt: skip


def test_a_file_has_to_have_the_columns_of_the_model(columns):
    panel = open_tab(columns, "Classify a file")
    choose(columns, "title,note\nT,N\n")
    panel.get_by_role("button", name="Classify the file").click()
    alert = panel.get_by_role("alert").filter(has_text="`body`")
    alert.wait_for()
    assert "title, note" in alert.inner_text() and columns.asked == []
    panel.get_by_label("Model").select_option("one")
    assert panel.get_by_label("Column of the texts").input_value() == "note"  # the column of its training
    choose(columns, "title\tbody\nT\tB\nU\t \n")
    panel.get_by_label("Model").select_option("both")
    panel.get_by_role("button", name="Classify the file").click()
    panel.get_by_text("1 of 2 rows are classified, 1 failed.").wait_for()
    assert [body["texts"] for body in columns.asked] == [[{"title": "T", "body": "B"}]]
