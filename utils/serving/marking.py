"""What the page shows: marked texts, findings, classes and their probabilities, as HTML and figures.

Whatever a user or a model wrote is escaped.
"""

from collections.abc import Callable
from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from utils.factuality import STOP_WORDS
from utils.factuality.words import split_words, stem
from utils.safety import SERIOUS, risk_level

BARS = 5  # likeliest classes of a level
LABEL_LENGTH = 45  # characters of a class above its bar: as wide as a phone
CSS = """
.text { white-space: pre-wrap; line-height: 1.6; }
.text mark, p mark { border-radius: 3px; padding: 0 2px; color: inherit; }
mark.level1, mark.covered { background: #d5e8d4aa; } mark.level2 { background: #ffe08acc; }
mark.level3, mark.invented { background: #f8a978cc; } mark.level4 { background: #f08080cc; }
.passages { list-style: none; padding-left: 0; } .passages li { margin: 6px 0; }
.banner { border-left: 5px solid #c0392b; background: #c0392b1a; font-weight: 600; padding: 8px 12px; }
"""


def mark_spans(text: str, findings: list[dict[str, Any]], css_class: Callable[[dict[str, Any]], str]) -> str:
    """HTML of a text with the spans of findings marked; of two that overlap the shorter one, since a finding about the
    whole text says nothing of a place."""
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
    """HTML of a source with the content words marked that its summary uses."""
    used = {word.stem for word in split_words(summary)} - {stem(word) for word in STOP_WORDS}
    spans = [{"span": [word.start, word.end]} for word in split_words(source) if word.stem in used]
    return f'<div class="text">{mark_spans(source, spans, lambda _: "covered")}</div>'


def list_findings(findings: list[dict[str, Any]]) -> str:
    """HTML of safety findings, the gravest first, each with its source."""
    if not findings:
        return "<p>The safety checks found nothing. That does not mean that there is nothing.</p>"
    rows = []
    for finding in sorted(findings, key=lambda f: -f["severity"]):
        link = f'<a href="{escape(finding["source"])}" target="_blank" rel="noreferrer">source</a>'
        text = f"{escape(finding['kind'])}: {escape(finding['message'])}"
        rows.append(f'<li><mark class="level{finding["severity"]}">{text}</mark> &middot; {link}</li>')
    return f"<p>Safety checks:</p><ul>{''.join(rows)}</ul>"


def list_passages(answer: dict[str, Any]) -> str:
    """HTML of the passages that an answer was given with, the cited ones marked; nothing without a corpus."""
    if "passages" not in answer:
        return ""
    if not answer["passages"]:
        return "<p>No passage of your texts shares words with the question, or none fits beside it.</p>"
    rows = []
    for passage in answer["passages"]:
        head = " &middot; ".join(escape(text) for text in (passage["title"], passage["source"]) if text)
        number = f"[{passage['number']}]"
        number = f'<mark class="covered">{number} cited</mark>' if passage["cited"] else number
        rows.append(f"<li>{number} {f'<b>{head}</b>: ' if head else ''}{escape(passage['text'])}</li>")
    return f'<p>Passages of your texts:</p><ul class="passages">{"".join(rows)}</ul>'


def warn_of(findings: list[dict[str, Any]]) -> str:
    """HTML of a warning above an answer in which something serious was found; else nothing."""
    if risk_level(findings) < SERIOUS:
        return ""
    return banner("Do not follow this answer: the safety checks found something serious in it, listed below.")


def banner(text: str) -> str:
    return f'<div class="banner" role="alert">{escape(text)}</div>'


def notes_on(answer: dict[str, Any]) -> str:
    """HTML of what a reader has to know of an answer or a summary beside its text."""
    notes = ["The text was longer than the model takes: it saw a part."] if answer["cut"] else []
    notes += [] if answer["finished"] else ["It stops where it was not finished, at a limit of length or time."]
    notes += [answer["confidence_note"]] if answer.get("confidence_note") else []
    return "".join(f"<p>{escape(note)}</p>" for note in notes)


def describe_classes(found: dict[str, Any], task: dict[str, Any]) -> str:
    """HTML of what a classifier says, in words that its calibration allows: of 100 such texts so many are right."""
    in_tree = "shown" in found
    path = found["prediction"] if in_tree else [found["prediction"]]
    confidence = found["confidence"] if in_tree else [found["confidence"]]
    shown = found["shown"] if in_tree else int(not found["abstained"])
    lines = []
    for level, (label, p) in enumerate(zip(path, confidence, strict=True)):
        chance = f"of 100 texts with this probability about {100 * p:.0f} are right"
        name = f"<b>{escape(label)}</b>" if level < shown else f"{escape(label)} &mdash; unsure"
        lines.append(f"<p>{name} ({chance})</p>")
    if shown < len(path):
        risk = task["abstention"]["max_risk"]
        what = "The finer class is for a person" if shown else "For a person"
        lines.append(banner(f"{what}: the model is too unsure for an error rate of {risk:.0%}."))
    cut = "<p>The text was longer than the model takes: it saw a part.</p>" if found["cut"] else ""
    return "".join([*lines, cut])


def plot_classes(found: dict[str, Any], task: dict[str, Any]) -> go.Figure:
    """Bars of the likeliest classes, a row of the figure a level, each with its name above it, since beside it a name
    would leave no room on a phone; the line is where the model is sure enough."""
    levels = found["probabilities"] if "shown" in found else [found["probabilities"]]
    abstention = task["abstention"]
    thresholds = abstention["thresholds"] if "shown" in found else [abstention["threshold"]]
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
    figure.update_xaxes(title="probability; dashed: sure enough", row=len(levels), col=1)
    figure.update_yaxes(showticklabels=False, range=[-0.5, BARS - 0.1])
    figure.update_layout(
        height=80 + 42 * BARS * len(levels), margin={"l": 10, "r": 35, "t": 10, "b": 40}, showlegend=False
    )
    return figure
