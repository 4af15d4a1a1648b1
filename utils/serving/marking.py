"""HTML and figures of the page: marked texts, safety findings, passages, classes and their probabilities.

All text of users and models is escaped.
"""

from collections.abc import Callable
from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from utils.factuality import STOP_WORDS
from utils.factuality.words import split_words, stem
from utils.safety import SERIOUS, risk_level

BARS = 5  # classes shown per level
LABEL_LENGTH = 45  # maximum characters of a class name: the width of a phone
CSS = """
.text { white-space: pre-wrap; line-height: 1.6; }
.text mark, p mark { border-radius: 3px; padding: 0 2px; color: inherit; }
mark.level1, mark.covered { background: #d5e8d4aa; } mark.level2 { background: #ffe08acc; }
mark.level3, mark.hallucinated { background: #f8a978cc; } mark.level4 { background: #f08080cc; }
.passages { list-style: none; padding-left: 0; } .passages li { margin: 6px 0; }
.banner { border-left: 5px solid #c0392b; background: #c0392b1a; font-weight: 600; padding: 8px 12px; }
"""


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
    if "passages" not in answer:
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


def plot_classes(found: dict[str, Any], task: dict[str, Any]) -> go.Figure:
    """Plot the most likely classes as bars, with one row per level.

    Names stand above their bars because they leave no room beside them on a phone. The dashed line is the threshold
    below which the model abstains.
    """
    levels = found["probabilities"] if "shown" in found else [found["probabilities"]]
    several = "thresholds" in task  # one for each label: no common line
    abstention = task.get("abstention", {})
    thresholds = abstention["thresholds"] if "shown" in found else [None if several else abstention["threshold"]]
    figure = make_subplots(rows=len(levels), cols=1, shared_xaxes=True, vertical_spacing=0.05)
    for row, (level, threshold) in enumerate(zip(levels, thresholds, strict=True), start=1):
        names, values = zip(*list(level.items())[:BARS][::-1], strict=True)
        bars = go.Bar(
            x=values, customdata=names, orientation="h", width=0.4, marker_color="#4c78a8", texttemplate="%{x:.2f}",
            textposition="outside", cliponaxis=False, hovertemplate="%{customdata}: %{x:.3f}<extra></extra>",
        )  # fmt: skip
        figure.add_trace(bars, row=row, col=1)
        for place, name in enumerate(names):
            short = name if len(name) <= LABEL_LENGTH else f"{name[: LABEL_LENGTH - 1]}…"
            figure.add_annotation(
                x=0, y=place, yshift=17, text=escape(short), showarrow=False, xanchor="left", row=row, col=1
            )
        if threshold is not None:
            figure.add_vline(x=threshold, line_dash="dash", line_color="#c0392b", row=row, col=1)
    figure.update_xaxes(range=[0, 1])
    title = "probability" if several else "probability; dashed: threshold to abstain"
    figure.update_xaxes(title=title, row=len(levels), col=1)
    figure.update_yaxes(showticklabels=False, range=[-0.5, BARS - 0.1])
    figure.update_layout(
        height=80 + 42 * BARS * len(levels), margin={"l": 10, "r": 35, "t": 10, "b": 40}, showlegend=False
    )
    return figure
