"""The page in a real browser: Chromium, where one is installed."""

import shutil

import pytest
from test_app import ATTACK, runs, serving  # noqa: F401  a fixture

from utils.serving.guard import DISCLAIMER

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


@pytest.fixture(scope="module")
def url(runs):  # noqa: F811
    with serving(list(runs.values())) as url:
        yield url


@pytest.fixture(scope="module")
def page(url):
    """The page; `asked` are the addresses that it asked for."""
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 1000})
        page.set_default_timeout(60_000)
        page.asked = []
        page.on("request", lambda r: None if r.url.startswith((url, "data:", "blob:")) else page.asked.append(r.url))
        page.goto(url)
        yield page
        browser.close()


def test_the_page_opens_with_its_warning_and_asks_no_other_site(page, url):
    page.get_by_text(DISCLAIMER).first.wait_for()
    page.wait_for_load_state("networkidle")
    assert [asked for asked in page.asked if not asked.startswith((url, "data:", "blob:"))] == []


def test_a_question_is_answered(page, tmp_path):
    page.get_by_role("tab", name="Ask", exact=True).click()
    page.get_by_label("Question").fill("What is cardiitis?")
    page.get_by_role("button", name="Ask", exact=True).click()
    page.get_by_text("mean probability of").wait_for()
    page.screenshot(path=tmp_path / "ask.png")


def test_an_example_is_filled_in(page):
    page.get_by_text("What is ataxia?").click()
    playwright.expect(page.get_by_label("Question")).to_have_value("What is ataxia?")


def test_an_emergency_is_a_red_banner(page, tmp_path):
    page.get_by_label("Question").fill(ATTACK)
    page.get_by_role("button", name="Ask", exact=True).click()
    banner = page.get_by_role("alert").filter(has_text="112")
    banner.wait_for()
    assert "chest" in banner.inner_text()
    page.screenshot(path=tmp_path / "emergency.png")


@pytest.mark.parametrize(("tab", "levels"), [("Classify", 1), ("Classify hierarchically", 2)])
def test_a_text_is_classified_with_bars(page, tmp_path, tab, levels):
    page.get_by_role("tab", name=tab, exact=True).click()
    panel = page.get_by_role("tabpanel").filter(visible=True)
    panel.get_by_label("Text", exact=True).fill("Patient 1: heart murmur.")
    panel.get_by_role("button", name="Classify", exact=True).click()
    bars = panel.locator(".js-plotly-plot .barlayer .trace")
    bars.first.wait_for()
    assert bars.count() == levels
    page.screenshot(path=tmp_path / f"{tab}.png")


def test_a_dialogue_is_summarized_and_its_text_marked(page, tmp_path):
    page.get_by_role("tab", name="Summarize").click()
    page.get_by_label("Dialogue or note").fill("Doctor: What is wrong?\nPatient: <b>fever</b> of the liver.")
    page.get_by_role("button", name="Summarize").click()
    page.get_by_text("<b>fever</b>").last.wait_for()  # as text, not as bold
    page.screenshot(path=tmp_path / "summarize.png")


def test_the_browser_asks_for_the_token_as_a_password(page, runs):  # noqa: F811
    with serving([runs["classification"]], token="a long token") as url:
        for password, status in (("a long token", 200), ("another", 401)):
            login = {"username": "", "password": password}  # given where the server asks for it, as a person would
            context = page.context.browser.new_context(http_credentials=login)
            own_page = context.new_page()
            assert own_page.goto(url).status == status
            if status == 200:
                own_page.get_by_text(DISCLAIMER).first.wait_for()
            context.close()
