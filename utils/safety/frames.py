"""Frames that make a sign of an emergency something other than a present one: fiction, teaching, family, the past.

A frame voids signs of its own sentence only, and only if the sentence is about nobody (`a film in which the hero is
stabbed`). A person beside the frame is real: `my professor says that my face droops`.
"""

import functools

from utils.safety.context import Sentence
from utils.safety.phrases import Mark, read_table

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
# Words for persons that name nobody: `a patient presents with`, `help for`, `there is`
_ANYBODY = {"patient", "help", "there", "there's"}  # fmt: skip
_PRONOUNS = {
    "i", "i'm", "i've", "i'd", "i'll", "me", "my", "mine", "myself", "we", "we're", "we've", "our", "us", "he", "he's",
    "she", "she's", "his", "her", "him", "they", "they're", "their", "them", "himself", "herself", "themselves", "you",
    "you're", "your", "yourself",
}  # fmt: skip
_TELLING = {"i", "i'm", "i've"}
_POSSESSIVES = {"my", "our", "your", "his", "her", "their"}
_CHARACTERS = {  # whom a story is about; `my` or `dad` is nobody's character
    "he", "he's", "she", "she's", "his", "her", "him", "himself", "herself", "patient", "student", "pupil", "someone",
    "somebody", "man", "woman", "boy", "girl", "child", "kid", "kids", "lady", "guy", "worker", "driver", "passenger",
    "guest", "customer", "client", "infant", "newborn", "teenager", "friend", "father", "mother", "baby", "wife",
    "husband", "son", "daughter", "help", "there", "there's",
}  # fmt: skip
_ASKER = {"i", "i'm", "i've", "i'd", "i'll", "me", "my", "mine", "myself", "help"}
_BESIDE = {"and", "with", "plus", "but", "so", "then"}
_COPULAS = {"can", "could", "may", "might", "be", "is", "are", "was", "were", "often", "also"}
_STORY_ENDS = {";", ":", "(", "but", "now", "today", "although", "though"}
_QUOTES = {"'", '"', "\u2018", "\u2019", "\u201c", "\u201d", "\u00ab", "\u00bb"}
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


def telling_start(sentence: Sentence) -> int:
    """Return the index of the first token of what a sentence tells of a person after a colon, a semicolon, or a comma
    with its subject (`what is this: my face ...`), or its length if it tells nothing there."""
    words, people = [token.word for token in sentence.tokens], _people(sentence)
    for i, word in enumerate(words, 1):
        if (word in (":", ";") and any(place >= i for place in people)) or (word == "," and i in people):
            return i
    return len(words)


def is_framed(flag: Mark, sentence: Sentence, *kinds: str) -> bool:
    """Return whether a frame voids a flag: fiction, the news or teaching (or a cue of one of `kinds`) in a sentence
    about nobody, or a story that governs it (`in the film he ...`).

    A person inside quotation marks (`translate "I am choking"`) is nobody. An urgent cue (`help me`) ends all frames.
    """
    if not sentence.has("fiction", "story", *kinds):
        return False
    quoted = _quoted(flag, sentence)
    marks = [mark for mark in sentence.marks if mark.first not in quoted]
    frames = [mark for mark in marks if mark.kind in ("fiction", "story", *kinds)]
    if not frames or any(mark.kind == "urgent" for mark in marks):
        return False
    if any(mark.kind == "story" and _governs(mark, flag, sentence) for mark in frames):
        return True
    return not _has_person(sentence, frames, quoted)


def _quoted(flag: Mark, sentence: Sentence) -> range:
    """Return the indices of the tokens between the quotation marks around a flag, if there are any."""
    places = [i for i, token in enumerate(sentence.tokens) if token.word in _QUOTES]
    if len(places) % 2 == 0:
        for start, end in zip(places[::2], places[1::2], strict=True):
            if start < flag.first <= flag.last < end:
                return range(start, end)
    return range(0)


def _governs(story: Mark, flag: Mark, sentence: Sentence) -> bool:
    """Return whether a flag is what a story tells: it follows the cue, and `he` or `she` are its characters.

    The story ends at a contrast and before a question (`in our simulation he stops breathing, how long ...`).
    """
    words = [token.word for token in sentence.tokens]
    end = story.last + 1
    while end < len(words) and words[end] not in _STORY_ENDS and not (words[end - 1] == "," and words[end] in ASKING):
        end += 1
    real = any(story.last < i < end and words[i].removesuffix("'s") not in _CHARACTERS for i in _people(sentence))
    return story.last < flag.first < end and not real


def _has_person(sentence: Sentence, frames: list[Mark], quoted: range = range(0)) -> bool:
    """Return whether a person is in a sentence, outside its frames (`our lecture`) and outside a quotation."""
    words = [token.word for token in sentence.tokens]
    topics = [mark for mark in frames if mark.first and words[mark.last] in ("on", "about", "of")]
    owned = {mark.first - 1 for mark in topics if words[mark.first - 1] in _POSSESSIVES}
    inside = {i for mark in frames for i in range(mark.first, mark.last + 1)} | owned | set(quoted)
    return not _people(sentence) <= inside


@functools.cache
def _names_of_people() -> frozenset[str]:
    """Return the words of the cue table that name a person (`dad`, `the boy`), without those that name nobody."""
    names = {row["phrase"] for row in read_table("cues") if row["kind"] == "anchor:person"}
    return frozenset(names | _PRONOUNS) - _ANYBODY


def _people(sentence: Sentence) -> set[int]:
    """Return the indices of the tokens that name a person."""
    names = _names_of_people()
    return {i for i, token in enumerate(sentence.tokens) if token.word.removesuffix("'s") in names}


def is_exam(sentences: list[Sentence]) -> bool:
    """Return whether a text is an exam question: a case of an unnamed patient (`a 64-year-old man ...`), and then a
    question about it at the end (`which of the following`, `the most likely diagnosis`).

    The case and its question are one unit. Without the question, or with a word of an asker (`my`, `help me`), the
    same patient is real.
    """
    if not sentences or any(sentence.has("urgent") for sentence in sentences):
        return False
    words = {token.word for sentence in sentences for token in sentence.tokens}
    has_case = any(sentence.has("case") for sentence in sentences)
    return has_case and sentences[-1].has("stem") and words.isdisjoint(_ASKER)


def is_general(mark: Mark, flag: Mark, sentence: Sentence, is_lasting: bool) -> bool:
    """Return whether a cue makes the clause of the flag general (`symptoms of`) or conditional (`if` before it).

    Question words are such cues only if the sentence is a question or begins with them, unlike in `a rash which does
    not fade` or `it hurts when I breathe`. They do not apply to statements before them. In a statement about a person
    (`I have the symptoms of a stroke`) nothing is general. What `is_lasting`, such as the wish to die, is general only
    right behind its cue.
    """
    before = sentence.tokens[mark.first - 1].word if mark.first else ","
    if mark.kind not in ("education", "premise") or sentence.clauses[mark.first] != sentence.clauses[flag.first]:
        return False
    if mark.kind == "education" and mark.last < telling_start(sentence) <= flag.first:
        return False
    if sentence.tokens[mark.first].word.removesuffix("'s") in _RELATIVE:
        relative = before.isalpha() and not is_asking(sentence)
        if relative or flag.last < mark.first and question_start(sentence) > flag.last:
            return False
    if mark.kind == "education" and mark.first <= flag.first <= flag.last <= mark.last:
        return True  # `a stroke ward`
    if mark.kind == "education":  # `I can feel` is not a general statement
        words = [token.word for token in sentence.tokens]
        if is_lasting and (flag.first < mark.first or not _PARTS.isdisjoint(words[mark.last + 1 : flag.first])):
            return False
        told = any(  # not `how do I cut grapes`, where the question has the subject
            m.kind == "now"
            and mark.last + 1 < m.first <= flag.first
            and (words[m.first] in _TELLING or (words[m.first] in _SUBJECTS and words[m.first - 1] in _PARTS))
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
    cues = sentence.of("past", "family")
    if not cues:
        return False
    parts = _parts(sentence)
    for mark in cues:
        held = parts[mark.first]
        if mark.kind == "family":
            if parts[flag.first] == held and _is_of_family(mark, flag, sentence):
                return True
            continue
        words = [token.word for token, part in zip(sentence.tokens, parts, strict=True) if part == held]
        alone = len(words) - (mark.last - mark.first + 1) <= TIME_WORDS and _SUBJECTS.isdisjoint(words)
        filled = any(parts[concept.first] == held for concept in sentence.concepts)
        applies = {held}
        if alone and not filled and held < parts[-1] and sentence.tokens[parts.index(held + 1)].word == ",":
            applies.add(held + 1)
        if parts[flag.first] in applies:
            return True
    return False


def _is_of_family(family: Mark, flag: Mark, sentence: Sentence) -> bool:
    """Return whether a flag is a disease of the family: `a history of stroke`, `strokes can be hereditary`, or one in
    a sentence about nobody; not what stands beside it (`crushing chest pain and a history of stroke`)."""
    words = [token.word for token in sentence.tokens]
    if flag.first > family.last:
        return (_BESIDE | _SUBJECTS).isdisjoint(words[family.last + 1 : flag.first])
    return _COPULAS.issuperset(words[flag.last + 1 : family.first]) or not _has_person(sentence, [family])


def is_resolved(flag: Mark, sentence: Sentence) -> bool:
    """Return whether a cue after the flag, or in its part, says that it is over: `he fell, he is fine now`."""
    cues = sentence.of("resolved")
    if not cues:
        return False
    parts = _parts(sentence)
    return any(mark.first > flag.first or parts[mark.first] == parts[flag.first] for mark in cues)
