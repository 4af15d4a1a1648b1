"""Second stage of the safety checks: a classifier that has learnt emergencies and harmful requests from phrasings.

The word lists of the first stage miss what they do not list. This stage adds to their findings and removes none. Its
weights are not part of the project: `make safety-classifier` trains them.
"""

from collections.abc import Iterator, Mapping

from utils.arguments import UserError
from utils.inference import Predictor
from utils.safety.context import Finding, SecondStage, make_finding
from utils.safety.phrases import split_sentences

OTHER = "other"  # the class of texts that need no alarm
SOURCE = "classifier of the second stage, trained by `make safety-classifier`"
MAX_WORDS = 60  # of a window: within the 128 tokens that the classifier reads, and most questions are shorter
KINDS = {
    "emergency": (4, "a classifier reads an emergency in it"),
    "harmful_request": (3, "asks for something harmful, as a classifier reads it"),
}


def load_second_stage(model: str, revision: str | None = None) -> SecondStage:
    """Load the classifier of `make safety-classifier`.

    Args:
        model: its output folder, or the Hub repository that it was pushed to.
        revision: commit, tag or branch on the Hub.

    Returns:
        a function that takes a question and returns at most one finding per kind, as `check_question` does.

    Raises:
        UserError: `model` is not a run, or not such a classifier.
    """
    predictor = Predictor.from_pretrained(model, revision)
    labels, found = predictor.task.get("labels") or [], predictor.task.get("safety")
    if found is None or set(labels) != {*KINDS, OTHER}:
        raise UserError(
            f"`safety_model` {model} is no classifier of safety checks: train one by `make safety-classifier`."
        )
    return lambda text: find_danger(text, predictor, found["thresholds"])


def find_danger(text: str, predictor: Predictor, thresholds: Mapping[str, float]) -> list[Finding]:
    """Return a finding for each kind of danger that the classifier reads in any part of a question.

    Args:
        text: the question.
        predictor: classifier with the classes of `KINDS` and `OTHER`.
        thresholds: kind -> probability from which there is a finding.
    """
    return [
        make_finding("second_stage", kind, KINDS[kind][0], f"{KINDS[kind][1]} (probability {p:.2f})", span, SOURCE)
        for kind, (p, span) in read_danger(text, predictor).items()
        if p >= thresholds[kind]
    ]


def read_danger(text: str, predictor: Predictor) -> dict[str, tuple[float, tuple[int, int]]]:
    """Return for each kind of danger its highest probability in a part of a text, and the span of that part."""
    spans = list(windows(text))
    found = predictor([text[start:end] for start, end in spans])
    parts = [(result["probabilities"], span) for result, span in zip(found, spans, strict=True)]
    return {kind: max((p[kind], span) for p, span in parts) for kind in KINDS} if parts else {}


def windows(text: str) -> Iterator[tuple[int, int]]:
    """Yield spans that cover a text: whole sentences, together at most `MAX_WORDS` words where a sentence allows it.

    A sentence that is longer is cut.
    """
    start = end = count = 0
    for sentence in split_sentences(text):
        for i in range(0, len(sentence), MAX_WORDS):
            tokens = sentence[i : i + MAX_WORDS]
            if count and count + len(tokens) > MAX_WORDS:
                yield start, end
                count = 0
            start = start if count else tokens[0].start
            end, count = tokens[-1].end, count + len(tokens)
    if count:
        yield start, end
