"""The page in a real browser, Chromium, where one is installed: on a desk and a phone, by keyboard, and under axe."""

import csv
import io
import json
import shutil

import pytest
from test_app import ATTACK, runs, serving  # noqa: F401  a fixture

from utils.serving.guard import DISCLAIMER

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
NOTE = "Patient 1: heart murmur."
DIALOGUE = "Doctor: What is wrong?\nPatient: <b>fever</b> of the liver."
TASKS = {  # tab -> label of its text, a text, button
    "Ask": ("Question", "What is cardiitis?", "Ask"),
    "Classify": ("Text", NOTE, "Classify"),
    "Classify hierarchically": ("Text", NOTE, "Classify"),
    "Summarize": ("Dialogue or note", DIALOGUE, "Summarize"),
}
CUT = """[...document.querySelectorAll('h1, h2, h3, p, li, label, legend, button, td, th, .text, .card')]
    .filter((e) => e.checkVisibility() && getComputedStyle(e).display !== 'inline')
    .filter((e) => e.scrollWidth > e.clientWidth + 1)
    .map((e) => e.outerHTML.slice(0, 200))"""


@pytest.fixture(scope="module")
def url(runs, tmp_path_factory):  # noqa: F811
    """A server with a model of each task, and a second classifier."""
    second = shutil.copytree(runs["classification"], tmp_path_factory.mktemp("lab") / "second")
    with serving([*runs.values(), str(second)]) as url:
        yield url


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, url):
    """The page in a fresh browser; `wrong` has what its console complains about, and requests to other sites."""
    context = browser.new_context(viewport=DESK)
    yield open_page(context, url)
    context.close()


def open_page(context, url: str):
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.wrong = []
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("console", lambda line: page.wrong.append(line.text) if "Security Policy" in line.text else None)
    page.on("request", lambda r: None if r.url.startswith((url, "data:", "blob:")) else page.wrong.append(r.url))
    page.goto(url)
    page.get_by_role("tab").first.wait_for()
    return page


def open_tab(page, name: str):
    page.get_by_role("tab", name=name, exact=True).click()
    return page.get_by_role("tabpanel").filter(visible=True)


def submit(page, tab: str, text: str | None = None):
    """Send the form of a tab, and return its panel once all answers are there."""
    label, example, button = TASKS[tab]
    panel = open_tab(page, tab)
    panel.get_by_label(label, exact=True).fill(example if text is None else text)
    panel.get_by_role("button", name=button, exact=True).click()
    return panel


def answered(page, tab: str, text: str | None = None):
    panel = submit(page, tab, text)
    panel.get_by_role("button", name="Download json").wait_for()
    return panel


def choose(page, text: str | bytes, name: str = "rows.csv") -> None:
    data = text if isinstance(text, bytes) else text.encode()
    page.get_by_label("Csv file").set_input_files({"name": name, "mimeType": "text/csv", "buffer": data})


def downloaded(page, panel, name: str) -> str:
    with page.expect_download() as download:
        panel.get_by_role("button", name=name).click()
    return download.value.path().read_text(encoding="utf-8-sig")


def table_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


# ----- Looks, and what a screen reader meets


@pytest.mark.parametrize(("size", "scheme"), [(DESK, "light"), (PHONE, "light"), (PHONE, "dark")])
def test_every_view_fits_and_is_accessible(browser, url, tmp_path, size, scheme):
    context = browser.new_context(viewport=size, color_scheme=scheme)
    page, found = open_page(context, url), []

    def look(view: str) -> None:
        page.screenshot(path=tmp_path / f"{view}.png", full_page=True)
        problems = axe.Axe().run(page).response["violations"]
        found.extend(
            (view, p["id"], p["nodes"][0]["html"]) for p in problems if p["impact"] in ("serious", "critical")
        )
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), view
        assert page.evaluate(CUT) == [], view

    for tab in TASKS:
        open_tab(page, tab)
        look(tab)
        answered(page, tab)
        look(f"{tab}, answered")
        submit(page, tab, " ").get_by_role("alert").first.wait_for()
        look(f"{tab}, refused")
    for text in (ATTACK, "Supercalifragilistic" * 30):
        answered(page, "Ask", text)
        look(f"Ask, {text[:5]}")
    for summary in page.locator("summary").all():
        summary.click()
    look("Ask, with all fields")
    open_tab(page, "Classify a file")
    look("file")
    choose(page, "id,text\n1,heart murmur\n2,\n")
    page.get_by_role("button", name="Classify the file").click()
    page.get_by_text("1 of 2 rows are classified").wait_for()
    look("file, classified")
    choose(page, "id,text\n1\n")
    page.get_by_role("alert").filter(has_text="Row 1").wait_for()
    look("file, refused")
    open_tab(page, "History").get_by_label("Keep a history").check()
    answered(page, "Classify")
    open_tab(page, "History")
    look("history")
    assert found == [] and page.wrong == [] and DISCLAIMER in page.inner_text("header")
    context.close()


def test_a_keyboard_reaches_everything_and_sees_where_it_is(page):
    names = page.get_by_role("tab").all_inner_texts()
    page.get_by_role("tab", name=names[0], exact=True).focus()
    for key, at in (("ArrowRight", 1), ("End", -1), ("ArrowRight", 0), ("ArrowLeft", -1), ("Home", 0)):
        page.keyboard.press(key)
        focused = page.locator(":focus")
        assert focused.inner_text() == names[at] and focused.get_attribute("aria-selected") == "true"
    reached = []
    for _ in range(7):
        page.keyboard.press("Tab")
        focused = page.locator(":focus")
        assert focused.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
        reached.append(focused.evaluate("e => e.name || e.innerText"))
    assert reached[0] == "question" and reached[1] == "What is ataxia?" and reached[-1] == "Ask"
    page.keyboard.press("Enter")  # the question is empty
    page.get_by_role("alert").filter(has_text="empty").wait_for()
    box = page.locator(":focus")
    assert box.get_attribute("name") == "question" and box.get_attribute("aria-invalid") == "true"
    panel = answered(page, "Ask")
    playwright.expect(panel.get_by_role("status")).to_have_text("Answered.")
    live = panel.locator("[aria-live=polite]")
    assert live.get_attribute("aria-busy") == "false" and "Confidence" in live.inner_text()


# ----- Answers


def test_an_example_is_filled_in_and_an_emergency_is_an_alert(page):
    page.get_by_role("button", name="What is ataxia?").click()
    playwright.expect(page.get_by_label("Question")).to_have_value("What is ataxia?")
    submit(page, "Ask", ATTACK)
    banner = page.get_by_role("alert").filter(has_text="112")
    banner.wait_for()
    assert "chest" in banner.inner_text()


def test_patient_and_settings_are_sent_and_a_word_for_a_number_is_refused(page):
    for summary in page.locator("summary").all():
        summary.click()
    page.get_by_label("Age in years").fill("old")
    submit(page, "Ask").get_by_role("alert").filter(has_text="`age`").wait_for()
    for label, value in (("Age in years", "0,5"), ("Kidney function", "52"), ("Medications", "warfarin, zorblax"),
                         ("Temperature", "0"), ("Maximum length", "3")):  # fmt: skip
        page.get_by_label(label).fill(value)
    page.get_by_label("Pregnant").check()
    with page.expect_request("**/page/generate") as sent:
        panel = answered(page, "Ask")
    body = sent.value.post_data_json
    patient = {"age": 0.5, "kidney": 52, "medications": "warfarin, zorblax", "pregnancy": True}
    assert body == {"model": "qa", "question": "What is cardiitis?", "temperature": 0, "max_length": 3,
                    "patient_context": patient}  # fmt: skip
    assert "medications: zorblax" in panel.inner_text()
    page.get_by_label("Age in years").fill("500")
    submit(page, "Ask").get_by_role("alert").filter(has_text="patient_context, age").wait_for()


def test_two_models_answer_beside_each_other_and_below_each_other_on_a_phone(page):
    cards = answered(page, "Classify").get_by_role("article")
    assert [card.get_by_role("heading").inner_text() for card in cards.all()] == ["classes", "second"]
    playwright.expect(page.get_by_text("The models agree.")).to_be_visible()
    left, right = (card.bounding_box() for card in cards.all())
    assert left["y"] == right["y"] and left["x"] + left["width"] < right["x"]
    page.set_viewport_size(PHONE)
    above, below = (card.bounding_box() for card in cards.all())
    assert above["x"] == below["x"] and above["y"] + above["height"] < below["y"]
    page.get_by_role("checkbox", name="second").uncheck()
    assert answered(page, "Classify").get_by_role("article").count() == 1
    page.get_by_role("checkbox", name="classes").uncheck()
    submit(page, "Classify").get_by_role("alert").filter(has_text="tick one").wait_for()


def test_an_answer_can_be_stopped_and_a_server_that_is_gone_is_told(page):
    page.route("**/page/summarize", lambda route: None)  # never answers
    submit(page, "Summarize").get_by_role("button", name="Stop").click()
    page.get_by_role("alert").filter(has_text="Stopped").wait_for()
    page.unroute("**/page/summarize")
    page.route("**/page/summarize", lambda route: route.abort())
    submit(page, "Summarize").get_by_role("alert").filter(has_text="does not answer").wait_for()


def test_results_are_downloaded_as_json_and_csv(page):
    panel = answered(page, "Classify", f"=1+1 {NOTE}")
    found = json.loads(downloaded(page, panel, "Download json"))
    assert found["input"] == {"Text": f"=1+1 {NOTE}"} and found["task"] == "classification"
    rows = table_of(downloaded(page, panel, "Download csv"))
    assert [row["model"] for row in rows] == [result["model"] for result in found["results"]] == ["classes", "second"]
    for row, result in zip(rows, found["results"], strict=True):
        (own,) = result["answer"]["results"]
        assert row["Text"] == f"'=1+1 {NOTE}" and row["prediction"] == own["prediction"]
        assert float(row["confidence"]) == own["confidence"] and row["needs_review"] == str(own["abstained"]).lower()
    panel = answered(page, "Summarize")
    (row,) = table_of(downloaded(page, panel, "Download csv"))
    assert row["text"] == DIALOGUE and row["summary"]


# ----- History


def test_a_history_is_kept_only_if_it_is_asked_for_and_never_leaves_the_browser(page):
    answered(page, "Classify")
    assert page.evaluate("localStorage.length") == 0
    sent = []
    page.on("request", lambda request: sent.append((request.url, request.post_data)))
    panel = open_tab(page, "History")
    assert "stays in this browser" in panel.inner_text() and not panel.get_by_label("Keep a history").is_checked()
    panel.get_by_label("Keep a history").check()
    assert sent == []
    answered(page, "Classify", "Patient 2: <img src=x onerror=alert(1)> kidney stone.")
    assert len(sent) == 2  # to each of two models
    page.reload()
    panel = open_tab(page, "History")
    entry = panel.get_by_role("listitem")
    assert entry.count() == 1 and "kidney stone" in entry.inner_text() and "second:" in entry.inner_text()
    sent.clear()
    entry.get_by_role("button", name="Use again").click()
    box = page.get_by_role("tabpanel").filter(visible=True).get_by_label("Text", exact=True)
    assert "kidney stone" in box.input_value() and box.evaluate("e => e === document.activeElement")
    panel = open_tab(page, "History")
    panel.get_by_role("button", name="Clear history").click()
    assert panel.get_by_role("listitem").count() == 0 and "kidney" not in page.evaluate(
        "Object.values(localStorage)+''"
    )
    panel.get_by_label("Keep a history").uncheck()
    assert page.evaluate("localStorage.length") == 0 and sent == [] and page.wrong == []


# ----- The token


def test_the_browser_asks_for_the_token_as_a_password(browser, runs):  # noqa: F811
    with serving([runs["classification"]], token="a long token") as url:
        for password, status in (("a long token", 200), ("another", 401)):
            login = {"username": "", "password": password}  # given where the server asks for it, as a person would
            context = browser.new_context(http_credentials=login)
            own_page = context.new_page()
            assert own_page.goto(url).status == status
            if status == 200:
                answered(own_page, "Classify")
            context.close()


def test_the_description_of_the_api_opens_under_its_policy(browser, url):
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{url}/docs")
    page.get_by_text("/classify").first.wait_for()
    context.close()
