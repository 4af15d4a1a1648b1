"""Frames that make a sign of an emergency something other than a present one: fiction, teaching, family, the past.

A frame voids signs of its own sentence only, and only if the sentence is about nobody (`a film in which the hero is
stabbed`). A person beside the frame is real: `my professor says that my face droops`.
"""

from utils.safety.context import Sentence
from utils.safety.phrases import Mark

ASKING = {
    "what", "how", "why", "which", "who", "when", "where", "is", "are", "do", "does", "did", "can", "could", "should",
    "would", "will", "was", "were", "has", "have", "may",
}  # fmt: skip
_GREETINGS = {"please", "hi", "hello", "sir", "madam", "doctor", "doc", "dear", "hey", ",", "so", "ok", "okay", "tell"}
_BEFORE_QUESTION = {",", ";", ":", "(", "and", "so", "but", "please", "!", "now"}
_PARTS = {",", ";", ":", "(", "but", "now", "although", "though", "because"}
_SUBJECTS = {
    "i", "i'm", "i've", "my", "he", "he's", "his", "she", "she's", "her", "we", "they", "it's", "now", "today",
}  # fmt: skip
_RELATIVE = {"which", "who", "when", "what", "how", "why", "where", "that"}
# Nouns that also stand for people in general: `a patient presents with`, `a man in the film`
_ANYBODY = {
    "patient", "student", "pupil", "someone", "somebody", "man", "woman", "boy", "girl", "child", "kid", "kids",
    "lady", "guy", "worker", "employee", "staff", "driver", "passenger", "guest", "customer", "client", "tenant",
    "infant", "newborn", "teenager", "friend", "help", "there's", "there", "father", "mother", "baby",
}  # fmt: skip
_PRONOUNS = {
    "i", "i'm", "i've", "i'd", "i'll", "me", "my", "mine", "myself", "we", "we're", "we've", "our", "us", "he", "he's",
    "she", "she's", "his", "her", "him", "they", "they're", "their", "them", "himself", "herself", "themselves", "you",
    "you're", "your", "yourself",
}  # fmt: skip
_TELLING = {"i", "i'm", "i've"}
TIME_WORDS = 3  # maximum words beside a time at the start of a sentence: `about five years ago, ...`


def is_asking(sentence: Sentence) -> bool:
    """Return whether a sentence is a question, with or without a question mark: `what is a stroke`."""
    words = [token.word for token in sentence.tokens if token.word not in _GREETINGS]
    return sentence.is_question or words[-1:] == [":"] or (bool(words) and words[0] in ASKING)


def question_start(sentence: Sentence) -> int:
    """Return the index of the first token of the question in a sentence, or its length if it asks nothing.

    What precedes the question is a statement: `he is grey and sweating, which tablet helps?`
    """
    words = [token.word for token in sentence.tokens]
    if not is_asking(sentence):
        return len(words)
    starts = [i for i, word in enumerate(words) if word in ASKING and (not i or words[i - 1] in _BEFORE_QUESTION)]
    return starts[0] if starts else 0


def is_fiction(sentence: Sentence, *kinds: str) -> bool:
    """Return whether a sentence is about an exam, a novel or the news, or has a cue of one of `kinds`, and about
    nobody. A sentence with an urgent cue (`help me`) never is."""
    frames = [mark for mark in sentence.marks if mark.kind in ("fiction", *kinds)]
    return bool(frames) and not sentence.has("urgent") and not _has_person(sentence, frames)


def _has_person(sentence: Sentence, frames: list[Mark]) -> bool:
    """Return whether a person is in a sentence, outside its frames (`my novel`)."""
    inside = {i for mark in frames for i in range(mark.first, mark.last + 1)}
    people = {
        i
        for mark in sentence.marks
        if mark.kind == "person" and sentence.tokens[mark.first].word not in _ANYBODY
        for i in range(mark.first, mark.last + 1)
    }
    people |= {i for i, token in enumerate(sentence.tokens) if token.word in _PRONOUNS}
    return not people <= inside


def is_general(mark: Mark, flag: Mark, sentence: Sentence) -> bool:
    """Return whether a cue makes the clause of the flag general (`symptoms of`) or conditional (`if` before it).

    Question words are such cues only if the sentence is a question or begins with them, unlike in `a rash which does
    not fade` or `it hurts when I breathe`. They do not apply to statements before them. In a statement about a person
    (`I have the symptoms of a stroke`) nothing is general.
    """
    before = sentence.tokens[mark.first - 1].word if mark.first else ","
    if mark.kind not in ("education", "premise") or sentence.clauses[mark.first] != sentence.clauses[flag.first]:
        return False
    if sentence.tokens[mark.first].word.removesuffix("'s") in _RELATIVE:
        relative = before.isalpha() and not is_asking(sentence)
        if relative or flag.last < mark.first and question_start(sentence) > flag.last:
            return False
    if mark.kind == "education" and mark.first <= flag.first <= mark.last:
        return True  # `a stroke ward`
    if mark.kind == "education":  # `I can feel` is not a general statement
        told = any(
            m.kind == "now" and mark.last < m.first <= flag.first and sentence.tokens[m.first].word in _TELLING
            for m in sentence.marks
        )
        asked = is_asking(sentence) and not told
        return before not in _SUBJECTS and (asked or not _has_person(sentence, [mark]))
    return mark.first < flag.first


def _parts(sentence: Sentence) -> list[int]:
    """Number the parts of a sentence, one index per token: they end at commas, contrasts and new subjects."""
    parts, part = [], 0
    for i, token in enumerate(sentence.tokens):
        after = sentence.tokens[i + 1].word if i + 1 < len(sentence.tokens) else ""
        part += token.word in _PARTS or (token.word in ("and", "then") and after in _SUBJECTS)
        parts.append(part)
    return parts


def is_past(flag: Mark, sentence: Sentence) -> bool:
    """Return whether a cue of the past or of the family is in the same part of the sentence: `I had a stroke in 2016,
    now my arm ...`.

    A time that is a part of its own (`years ago, I had ...`) applies to the next part.
    """
    cues = [mark for mark in sentence.marks if mark.kind in ("past", "family")]
    if not cues:
        return False
    parts = _parts(sentence)
    for mark in cues:
        held = parts[mark.first]
        words = [token.word for token, part in zip(sentence.tokens, parts, strict=True) if part == held]
        alone = len(words) - (mark.last - mark.first + 1) <= TIME_WORDS and _SUBJECTS.isdisjoint(words)
        filled = any(parts[concept.first] == held for concept in sentence.concepts)
        if parts[flag.first] == held + (mark.kind == "past" and alone and not filled):
            return True
    return False


def is_resolved(flag: Mark, sentence: Sentence) -> bool:
    """Return whether a cue after the flag, or in its part, says that it is over: `he fell, he is fine now`."""
    cues = [mark for mark in sentence.marks if mark.kind == "resolved"]
    if not cues:
        return False
    parts = _parts(sentence)
    return any(mark.first > flag.first or parts[mark.first] == parts[flag.first] for mark in cues)
