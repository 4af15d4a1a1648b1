"""Determine whether a text affirms or denies what it names, and whether that concerns the patient or the family.

A compact version of ConText (Harkema et al. 2009), which extends NegEx (Chapman et al. 2001): a trigger opens a scope
that runs to the end of the sentence or to a terminating word. The patterns below are the complete rule set. medspacy
and negspacy have larger ones, but they need spaCy and do not handle dialogues. Here a question is read together with
its short answer ("Any chest pain?" "No."), and "she" refers to the mother after a turn about the mother.
"""

import re
from bisect import bisect_left
from typing import NamedTuple

# Negates what follows.
DENIES = (
    r"no|not|never|none of|denie[sd]|deny|denying|without|negative(?! test| pregnancy)|absence of|free of|free from"
    r"|quit|stopped|discontinued|former|neither|nor|unremarkable for|fail(?:s|ed) to (?:show|reveal)|nothing"
    r"|declined?|declines|cannot|ruled out|rules out|(?:do|does|did|is|was|have|has|had|are|were|ca|could|wo|would)n't"
    r"|non(?=-(?:smok|drink|cigarette|tobacco|etoh|alcohol|diabetic))"
)
# Negates what precedes.
DENIED = (
    r"(?:is|was|are|were|been) (?:ruled out|absent|denied|negative|unlikely|not (?:present|seen|noted|found))"
    r"|there (?:is|are|was|were) none| ?[:-] ?(?:none|no|negative|denied|denies)(?= ?(?:[.,;\n]|$))"
    r"|(?<=\w)[- ]free(?= ?(?:[.,;\n]|$))"
)
# Pseudo-negations: look like the above but negate nothing.
NOT_DENYING = (
    r"no (?:significant |interval |definite )?(?:change|increase)s?|not (?:only|necessarily|sure|certain|just)"
    r"|no (?:doubt|wonder)|gram negative|without (?:any )?(?:difficulty|complications?|problems?)"
    r"|can't (?:stand|take|wait)|(?:not|can't|cannot) (?:be |been )?ruled? out|(?:wo|do)n't (?:worry|know|mind)"
    r"|not (?:know|improv\w+|getting|gone|go away|going away)"
    r"|(?:does|did|is|has)n't (?:improve\w*|gotten|getting|gone|go away|going|help\w*)"
)
# Makes what follows uncertain.
ASKS = r"(?:to )?rule out|r/o|evaluat(?:e|ion) for|if (?:you|i|he|she|they|there|it|the patient|any|either)|in case of"
# Ends the scope of a trigger.
CLOSES = (
    r"but|however|although|though|except|apart from|aside from|besides|because|since|secondary to|due to|still|yet"
    r"|who|present(?:s|ed|ing)|remain(?:s|ed)|complain(?:s|ed|ing) of|admits? to|positive for|other than"
    r"|(?:and|,) ?(?:i|he|she|it|they|we|you|there|has|have|had|is|was|does|did|takes?|the patient)"
)
RELATIVE = (
    r"(?:step|half|grand)?-?(?:mother|father|brother|sister|sibling|son|daughter|parent|child|uncle|aunt)s?|moms?|mums?"
    r"|dads?|cousins?|niece|nephew|grandma|grandpa|wife|husband|relatives?|family|familial"
)
# Findings of the family follow these ...
OF_FAMILY = rf"(?:{RELATIVE})(?:'s)?(?: history)?"
# ... and precede these.
IN_FAMILY = rf"(?:in|on|for|by) (?:(?:his|her|my|your|the|their|both) )?(?:{RELATIVE})(?:'s)?(?: side| members?)?"
# Relatives who say or do something but have no finding: "lives with his wife", "my mother says".
NOT_OF_FAMILY = (
    rf"(?:live[sd]?|living|here|came|comes|stays?|along|married) (?:\w+ ){{0,4}}(?:{RELATIVE})"
    rf"|(?:brought|accompanied|seen) (?:in )?by (?:\w+ )?(?:{RELATIVE})"
    rf"|(?:{RELATIVE}) (?:also )?(?:says?|said|states?|stated|reports?|reported|noticed|thinks?|den(?:y|ies|ied))"
    rf"|(?:{RELATIVE}) (?:is worried|brought)|family (?:doctor|physician|practi\w+|medicine)"
)
# The patient, or "you"; not "I think" or "I'm sorry to hear that", which do not say who has the finding.
PATIENT = (
    r"(?<!of )the patient|(?<!of the )patient (?:has|is|was|had)|myself|you(?! know| remember)|your|you're|you've"
    r"|i've|i'd|(?:i|i'm)(?! (?:am )?(?:\w+ )?(?:sorry|think|know|believe|guess|see|remember|mean|not sure|don't)\b)"
)
PRONOUN = r"he|she|they|his|her|their|him"

FILLER = r"(?:(?:um+|uh+|oh|ah|well|hm+|mm+|okay|so|doctor|doc|actually)\b[ ,.]*)*"
YES = (
    rf"{FILLER}(?:yes|yeah|yep|yup|sure|correct|right|exactly|definitely|mhm|uh-huh|of course|that's right"
    r"|unfortunately|i (?:do|have|did|am|was)\b(?! not)|it (?:is|does|was)|sometimes|occasionally|just a|a little"
    r"|a bit|a lot)\b"
)
NO = (
    rf"{FILLER}(?:no|nope|nah|naw|none|not|never|negative|neither|nothing|nobody|denie[sd]"
    r"|i (?:don't|do not|haven't|have not|didn't|did not|am not))\b"
)
# The whole content of a section: "ALLERGIES: none."
NOTHING = r"(?:none|no|negative|denie[sd])\W*$"
# Questions that a transcript ends with a full stop.
QUESTION = rf"{FILLER}(?:(?:do|does|did|have|has|had|are|is|was|were) (?:you|your|she|he|they|there|it|any\w*)|any)\b"
# Questions that presuppose what they name: "How long have you had this pain?"
OPEN_QUESTION = rf"{FILLER}(?:and )?(?:how|what|when|where|why|which|who)(?!'?s? about| else)\b"

LABEL = re.compile(r"(?:^|(?<=[\n.?!\"]))[ \t]*([A-Z][A-Za-z_]*\d*):(?=\s|$)", re.MULTILINE)
SENTENCE = re.compile(r"(?:\b(?:[Dd]r|[Mm]rs?|[Mm]s|vs|e\.g|i\.e|approx)\.|\d\.\d|[^.?!\n。！？؟۔।])+[.?!。！？؟۔।]*")

Span = tuple[int, int]


class Sentence(NamedTuple):
    """Span of a sentence, the index of its turn, and the speaker (the label before the colon, in lower case)."""

    start: int
    end: int
    turn: int
    speaker: str


def split_sentences(text: str) -> list[Sentence]:
    """Split a note or dialogue into sentences. A label such as "Doctor:" or "ALLERGIES:" begins a turn."""
    labels = list(LABEL.finditer(text))
    ends = [*(label.start() for label in labels), len(text)]
    starts = [(0, ""), *((label.end(), label[1].lower()) for label in labels)]
    return [
        Sentence(match.start(), match.end(), turn, speaker)
        for turn, ((start, speaker), end) in enumerate(zip(starts, ends, strict=True))
        for match in SENTENCE.finditer(text, start, end)
        if re.search(r"\w", match[0])
    ]


def find_scopes(text: str) -> dict[str, list[Span]]:
    """Find the scopes of a text.

    Returns:
        Spans under the keys `absent` (negated), `unknown` (asked or uncertain), `family` (about relatives) and
        `someone` (about the patient or relatives; the text does not say which).
    """
    # letters with a longer lower case, such as the Turkish dotted I, are kept: offsets must not shift
    flat = "".join(c.lower() if len(c.lower()) == 1 else c for c in text.replace("\u2019", "'"))
    sentences = split_sentences(text)
    scopes: dict[str, list[Span]] = {"absent": [], "unknown": [], "family": [], "someone": []}
    is_about_family = False
    for i, sentence in enumerate(sentences):
        scopes["absent"] += _denied_spans(flat, sentence)
        scopes["unknown"] += _opened_spans(flat, sentence, _places(ASKS, flat, sentence))
        if flat[sentence.start - 1 : sentence.start] == ":" and _matches(NOTHING, flat, sentence):
            scopes["absent"].append((sentence.start - 1 - len(sentence.speaker), sentence.start))
        family = _family_spans(flat, sentence)
        scopes["family"] += family
        if family or _places(PATIENT, flat, sentence):
            is_about_family = bool(family)
        elif not sentence.speaker:  # a note naming no one: "Remarkable for stroke." may be family history
            is_about_family = False
            if not _places(rf"{PRONOUN}|patient", flat, sentence):
                scopes["someone"].append((sentence.start, sentence.end))
        elif is_about_family:  # in a dialogue "She had lung cancer." is still the mother, "Any stroke?" may be
            is_hers = _places(PRONOUN, flat, sentence) and sentence.speaker.startswith(("patient", "pt"))
            scopes["family" if is_hers else "someone"].append((sentence.start, sentence.end))
        if _is_question(flat, sentence) and not _matches(OPEN_QUESTION, flat, sentence):
            answer = next(
                (s for s in sentences[i + 1 :] if s.turn != sentence.turn or not _is_question(flat, s)), None
            )
            if answer is None or not _matches(YES, flat, answer):
                denied = answer is not None and _matches(NO, flat, answer)
                scopes["absent" if denied else "unknown"].append((sentence.start, sentence.end))
    return scopes


def assertion_at(scopes: dict[str, list[Span]], start: int) -> tuple[str, str]:
    """Return ("present" | "absent" | "unknown", "patient" | "family" | "unknown") for a term that starts here."""
    inside = {name: any(first <= start < last for first, last in spans) for name, spans in scopes.items()}
    status = "absent" if inside["absent"] else "unknown" if inside["unknown"] else "present"
    return status, "family" if inside["family"] else "unknown" if inside["someone"] else "patient"


def _is_question(flat: str, sentence: Sentence) -> bool:
    asked = sentence.speaker and _matches(QUESTION, flat, sentence)
    return bool(asked) or flat[sentence.start : sentence.end].endswith("?")


def _matches(pattern: str, flat: str, sentence: Sentence) -> bool:
    return re.compile(r"\s*" + pattern).match(flat, sentence.start, sentence.end) is not None


def _places(pattern: str, flat: str, sentence: Sentence) -> list[Span]:
    found = re.compile(rf"(?<!\w)(?:{pattern})(?!\w)").finditer(flat, sentence.start, sentence.end)
    return [match.span() for match in found]


def _before(closes: list[int], place: int, default: int) -> int:
    """Return the last of the sorted positions before `place`."""
    i = bisect_left(closes, place)
    return closes[i - 1] if i else default


def _from(closes: list[int], place: int, default: int) -> int:
    """Return the first of the sorted positions at or after `place`."""
    i = bisect_left(closes, place)
    return closes[i] if i < len(closes) else default


def _opened_spans(flat: str, sentence: Sentence, triggers: list[Span]) -> list[Span]:
    closes = [start for start, _ in _places(CLOSES, flat, sentence)]
    return [(end, _from(closes, end, sentence.end)) for _, end in triggers]


def _denied_spans(flat: str, sentence: Sentence) -> list[Span]:
    # "No, I have a cough": the answer "No," does not negate what follows
    answer = re.compile(rf"\s*{FILLER}(?:no|nope|nah),").match(flat, sentence.start, sentence.end)
    ignored = _places(NOT_DENYING, flat, sentence) + ([answer.span()] if answer else [])
    spans = _opened_spans(flat, sentence, _outside(ignored, _places(DENIES, flat, sentence)))
    closes = [start for start, _ in _places(CLOSES, flat, sentence)]
    for start, _ in _outside(ignored, _places(DENIED, flat, sentence)):
        spans.append((_before(closes, start, sentence.start), start))
    return spans


def _family_spans(flat: str, sentence: Sentence) -> list[Span]:
    ignored = _places(NOT_OF_FAMILY, flat, sentence)
    patient = [start for start, _ in _places(PATIENT, flat, sentence)]
    spans = []
    for start, end in _outside(ignored, _places(OF_FAMILY, flat, sentence)):
        spans.append((start, _from(patient, end, sentence.end)))
    for start, _ in _outside(ignored, _places(IN_FAMILY, flat, sentence)):
        spans.append((_before(patient, start, sentence.start), start))
    return spans


def _outside(ignored: list[Span], places: list[Span]) -> list[Span]:
    return [place for place in places if not any(first < place[1] and place[0] < last for first, last in ignored)]
