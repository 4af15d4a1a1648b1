"""HTML of the page: marked texts, safety findings, passages, classes and their probabilities as bars.

All text of users and models is escaped.
"""

from collections.abc import Callable
from html import escape
from itertools import islice
from typing import Any

from utils.factuality import STOP_WORDS
from utils.factuality.words import split_words, stem
from utils.safety import SERIOUS, risk_level

BARS = 5  # classes shown per level
NOT_SEARCHED = "<p>Hallucinations were not searched: the rules and word lists are English, and the text is not.</p>"
SUMMARY = '<p><b>Summary</b> (hallucinations that were found are <mark class="hallucinated">marked</mark>)</p>'
SOURCE = '<p><b>Text</b> (words that the summary uses are <mark class="covered">marked</mark>)</p>'


# ----- One answer of each task


def answer_html(answer: dict[str, Any]) -> str:
    """Return an answer of `/generate` as HTML, with what the safety checks found of it."""
    report = answer["safety_report"]
    if report is None:
        return f'<div class="text">{escape(answer["response"])}</div>{notes_on(answer)}'
    found = report["warnings"]
    notes = unrecognised_note(report["unrecognised"]) + list_findings(found, report["unread_language"])
    if any(finding["where"] == "question" for finding in found):  # a fixed reply: no model was asked
        return banner(answer["response"]) + notes
    marked = mark_spans(answer["response"], found, lambda finding: f"level{finding['severity']}")
    text = warn_of(found) + f'<div class="text">{marked}</div>'
    return text + notes + notes_on(answer) + list_passages(answer)


def classes_html(found: dict[str, Any], task: dict[str, Any]) -> str:
    """Return a result of `/classify` as HTML, with a bar for each of the most likely classes."""
    return describe_classes(found, task) + draw_classes(found, task)


def summary_html(answer: dict[str, Any], text: str) -> str:
    """Return an answer of `/summarize` as HTML, with hallucinations marked in it, and its words in the text."""
    hallucinations = answer["hallucinations"] or []
    marked = mark_spans(answer["summary"], hallucinations, lambda _: "hallucinated")
    listed = "".join(f"<li>{escape(f['text'])}: {escape(f['detail'])}</li>" for f in hallucinations)
    notes = notes_on(answer) + (f"<ul>{listed}</ul>" if listed else "")
    notes += NOT_SEARCHED if answer["hallucinations"] is None else ""
    return f'{SUMMARY}<div class="text">{marked}</div>{notes}{SOURCE}{mark_covered(text, answer["summary"])}'


# ----- Texts with marks


def mark_spans(text: str, findings: list[dict[str, Any]], css_class: Callable[[dict[str, Any]], str]) -> str:
    """Return a text as HTML with the spans of findings marked.

    Of overlapping spans only the shortest is marked, since a finding about the whole text points at no place.

    Args:
        text: the text that the spans refer to.
        findings: dicts with `span` [start, end] and `message` or `detail`, which becomes the tooltip.
        css_class: returns the CSS class of a finding.
    """
    kept: list[dict[str, Any]] = []
    for finding in sorted(findings, key=lambda f: f["span"][1] - f["span"][0]):
        start, end = finding["span"]
        if all(end <= other["span"][0] or start >= other["span"][1] for other in kept):
            kept.append(finding)
    parts, at = [], 0
    for finding in sorted(kept, key=lambda f: f["span"]):
        start, end = finding["span"]
        title = escape(finding.get("message") or finding.get("detail", ""))
        parts.append(escape(text[at:start]))
        parts.append(f'<mark class="{css_class(finding)}" title="{title}">{escape(text[start:end])}</mark>')
        at = end
    return "".join([*parts, escape(text[at:])])


def mark_covered(source: str, summary: str) -> str:
    """Return a source as HTML, with the content words marked that also occur in its summary."""
    used = {word.stem for word in split_words(summary)} - {stem(word) for word in STOP_WORDS}
    spans = [{"span": [word.start, word.end]} for word in split_words(source) if word.stem in used]
    return f'<div class="text">{mark_spans(source, spans, lambda _: "covered")}</div>'


# ----- Findings, passages and notes


def unread_note(language: str | None) -> str:
    """Return a warning as HTML that the checks cannot read the language of a text; empty for English."""
    if language is None:
        return ""
    return banner(f"The safety checks read English alone, and this text is not ({language}): it was not checked.")


def unrecognised_note(facts: list[dict[str, str]]) -> str:
    """Return a warning as HTML of facts about the patient that the checks do not know, from
    `utils.safety.unrecognised`; empty without any."""
    named = "; ".join(f"{fact['key']}: {fact['value']}" for fact in facts)
    return banner(f"Not checked, because the safety checks do not know it: {named}") if facts else ""


def list_findings(findings: list[dict[str, Any]], language: str | None = None) -> str:
    """Return safety findings as an HTML list, most severe first, each with a link to its source.

    `language`: of a text that the checks cannot read, see `utils.safety.language`; said in place of nothing found.
    """
    if language is not None:
        return unread_note(language) + (list_findings(findings) if findings else "")
    if not findings:
        return "<p>The safety checks found nothing. That does not mean that the answer is safe.</p>"
    rows = []
    for finding in sorted(findings, key=lambda f: -f["severity"]):
        link = f'<a href="{escape(finding["source"])}" target="_blank" rel="noreferrer">source</a>'
        text = f"{escape(finding['kind'])}: {escape(finding['message'])}"
        rows.append(f'<li><mark class="level{finding["severity"]}">{text}</mark> &middot; {link}</li>')
    return f"<p>Safety checks:</p><ul>{''.join(rows)}</ul>"


def list_passages(answer: dict[str, Any]) -> str:
    """Return the passages behind an answer as an HTML list, cited ones marked; empty without a corpus."""
    if answer.get("passages") is None:
        return ""
    if not answer["passages"]:
        return "<p>No passage of your texts shares words with the question, or none fits into the prompt with it.</p>"
    rows = []
    for passage in answer["passages"]:
        head = " &middot; ".join(escape(text) for text in (passage["title"], passage["source"]) if text)
        number = f"[{passage['number']}]"
        number = f'<mark class="covered">{number} cited</mark>' if passage["cited"] else number
        rows.append(f"<li>{number} {f'<b>{head}</b>: ' if head else ''}{escape(passage['text'])}</li>")
    return f'<p>Passages from your texts:</p><ul class="passages">{"".join(rows)}</ul>'


def warn_of(findings: list[dict[str, Any]]) -> str:
    """Return a warning as HTML if an answer has a finding of severity `SERIOUS` or higher; empty otherwise."""
    if risk_level(findings) < SERIOUS:
        return ""
    return banner("Do not follow this answer: the safety checks found a serious problem, listed below.")


def banner(text: str) -> str:
    return f'<div class="banner" role="alert">{escape(text)}</div>'


def notes_on(answer: dict[str, Any]) -> str:
    """Return notes on an answer or summary as HTML: input cut, output unfinished, meaning of the confidence."""
    notes = ["The text was too long for the model, which saw only a part of it."] if answer["cut"] else []
    notes += [] if answer["finished"] else ["It is not finished: it stopped at the length or time limit."]
    notes += [answer["confidence_note"]] if answer.get("confidence_note") else []
    return "".join(f"<p>{escape(note)}</p>" for note in notes)


# ----- Classes


def describe_classes(found: dict[str, Any], task: dict[str, Any]) -> str:
    """Return a classification as HTML, with its calibrated probability worded as N of 100 texts."""
    if "thresholds" in task:
        return describe_labels(found)
    in_tree = "shown" in found
    path = found["prediction"] if in_tree else [found["prediction"]]
    confidence = found["confidence"] if in_tree else [found["confidence"]]
    shown = found["shown"] if in_tree else int(not found["abstained"])
    lines = []
    for level, (label, p) in enumerate(zip(path, confidence, strict=True)):
        chance = f"of 100 texts with this probability, about {100 * p:.0f} are right"
        name = f"<b>{escape(label)}</b>" if level < shown else f"{escape(label)} &mdash; unsure"
        lines.append(f"<p>{name} ({chance})</p>")
    if shown < len(path):
        risk = task["abstention"]["max_risk"]
        what = "The finer class needs human review" if shown else "This text needs human review"
        lines.append(banner(f"{what}: the model is not sure enough for an error rate of {risk:.0%}."))
    cut = "<p>The text was too long for the model, which saw only a part of it.</p>" if found["cut"] else ""
    return "".join([*lines, cut])


def describe_labels(found: dict[str, Any]) -> str:
    """Return the labels of a text that can have several as HTML, with their calibrated probabilities."""
    chances = zip(found["prediction"], found["confidence"], strict=True)
    lines = [
        f"<p><b>{escape(label)}</b> (of 100 texts with this probability, about {100 * p:.0f} have the label)</p>"
        for label, p in chances
    ]
    if not lines:
        lines = [banner("No label is probable enough: this text needs human review.")]
    cut = "<p>The text was too long for the model, which saw only a part of it.</p>" if found["cut"] else ""
    return "".join([*lines, cut])


def draw_classes(found: dict[str, Any], task: dict[str, Any]) -> str:
    """Return the most likely classes as bars in HTML, with a list per level.

    The bars of predicted classes stand out. The line across a bar is the threshold below which the model abstains, or
    of several labels that of each label.
    """
    in_tree = "shown" in found
    levels = found["probabilities"] if in_tree else [found["probabilities"]]
    predicted = found["prediction"]
    lists = []
    for number, level in enumerate(levels):
        own = predicted[number : number + 1] if in_tree else predicted if isinstance(predicted, list) else [predicted]
        rows = []
        for name, p in islice(level.items(), BARS):
            threshold = _threshold(task, name, number if in_tree else None)
            at = None if threshold is None else f"{100 * threshold:.1f}"
            line = "" if at is None else f'<line x1="{at}" x2="{at}" y2="8" />'
            bar = f'<rect width="{100 * p:.1f}" height="8" />{line}'
            svg = f'<svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">{bar}</svg>'
            head = f'<span>{escape(name)}</span> <span class="number">{p:.2f}</span>'
            rows.append(f'<li class="{"predicted" if name in own else "other"}">{head}{svg}</li>')
        title = f"<p>Level {number + 1}</p>" if len(levels) > 1 else ""
        lists.append(f'{title}<ol class="bars">{"".join(rows)}</ol>')
    bars = "".join(lists)
    line = "; line: the threshold to predict a label" if "thresholds" in task else "; line: the threshold to abstain"
    return f'{bars}<p class="hint">Calibrated probability{line if "<line" in bars else ""}.</p>'


def _threshold(task: dict[str, Any], name: str, level: int | None) -> float | None:
    if "thresholds" in task:
        labels = task["labels"]
        return task["thresholds"][labels.index(name)] if name in labels else None
    abstention = task.get("abstention", {})
    return abstention.get("threshold") if level is None else abstention["thresholds"][level]
