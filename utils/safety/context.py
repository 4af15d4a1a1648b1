"""Context of drug mentions in advice: negation, conditions, history, other people.

Applies the idea of NegEx and ConText (Chapman et al. 2001, Harkema et al. 2009), trigger phrases whose scope ends with
the clause, to advice instead of findings: `do not take A with B` forbids, `if you take A` says what is already taken,
`my father took A` is a story. The triggers are in `utils/safety/tables/cues.csv`.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

from utils.safety.concepts import find_concepts
from utils.safety.drugs import drug_phrases
from utils.safety.phrases import Mark, Phrases, Token, compile_phrases, find_phrases, read_table, split_sentences

_CONTRASTS = {"but", "however", "although", "though", "whereas", "yet"}
_IMPERATIVES = {"take", "use", "give", "start", "begin", "continue", "add", "try", "have", "swallow", "keep", "go"}
_BEFORE_IMPERATIVE = {"and", "then", "or", "you", "can", "should", "may", "also", "just", "please", "so", ",", "could"}
_BEFORE_DIRECTIVE = {  # besides punctuation, bullets and numbers
    "you", "can", "should", "may", "must", "could", "might", "and", "then", "please", "just", "also", "simply",
    "safely", "let's", "i'd", "would", "him", "her", "them", "so", "or", "always", "to", "now",
}  # fmt: skip
_SENTENCE_STARTS = {"i", "i'll", "i'd", "you", "we", "let's", "it", "this", "that", "there", "he", "she", "they"}
_CONDITION_ENDS = {",", "then", "can", "should", "may", "must", "will", "could", "might", "you'll"}
_SUBJECTS = {"i", "i'm", "i've", "he", "he's", "she", "she's", "we", "they", "now", "there's"}
_RENEWING = {  # words that start a new statement after a comma or `and`, where an earlier negation does not apply
    "my", "his", "her", "our", "the", "is", "are", "was", "has", "have", "had", "can't", "won't", "keeps", "just",
    "only", "still", "feel", "feels", "looks", "going", "gone", "went", "getting", "got", "turning", "turned",
    "started", "says", "it's", "this", "that", "hardly", "barely",
}  # fmt: skip
_JOINS = {",", "and", "but", "so"}
_EXPLAINS = {  # between a product and its ingredient
    "(", "/", "=", ":", "contain", "contains", "containing", "include", "includes", "including", "is", "are", "has",
    "have", "made", "called", "means", "which", "not",
}  # fmt: skip
_LIST_WORDS = {",", "and", "or", "/", "(", ")", "&"}

Finding = dict[str, Any]
SecondStage = Callable[[str], list[Finding]]  # takes a question


def make_finding(rule: str, kind: str, severity: int, message: str, span: tuple[int, int], source: str) -> Finding:
    """Build the dict that checks return. Severity: 1 note, 2 caution, 3 serious, 4 emergency or contraindicated."""
    keys = ("rule", "kind", "severity", "message", "span", "source")
    return dict(zip(keys, (rule, kind, severity, message, list(span), source), strict=True))


class Sentence(NamedTuple):
    """A sentence: tokens, marks of cues and drugs, index of the clause of each token, whether it ends in a question
    mark, marks of concepts (of red flags and harmful requests), and `marks` by kind, since a search through all of
    them for each of them takes seconds in a text that repeats a phrase."""

    tokens: list[Token]
    marks: list[Mark]
    clauses: list[int]
    is_question: bool
    concepts: list[Mark]
    by_kind: dict[str, list[Mark]]

    @property
    def span(self) -> tuple[int, int]:
        return self.tokens[0].start, self.tokens[-1].end

    def has(self, *kinds: str) -> bool:
        return any(kind in self.by_kind for kind in kinds)

    def of(self, *kinds: str) -> list[Mark]:
        """Return the marks of some kinds, one kind after the other."""
        return [mark for kind in kinds for mark in self.by_kind.get(kind, ())]


@functools.cache
def _phrases() -> Phrases:
    cues = [(row["phrase"], row["kind"], "") for row in read_table("cues")]
    return compile_phrases([*drug_phrases(), *cues])


def read_sentences(text: str) -> list[Sentence]:
    """Split a text into sentences and mark drugs, cues and concepts."""
    sentences = []
    for tokens in split_sentences(text):
        marks = find_phrases(_phrases(), tokens)
        clauses = _clauses(tokens, marks)
        by_kind: dict[str, list[Mark]] = {}
        for mark in marks:
            by_kind.setdefault(mark.kind, []).append(mark)
        is_question = tokens[-1].word == "?"
        sentences.append(Sentence(tokens, marks, clauses, is_question, find_concepts(tokens), by_kind))
    return sentences


def _clauses(tokens: list[Token], marks: list[Mark]) -> list[int]:
    """Number the clauses of a sentence, one index per token.

    A clause ends at a semicolon, before a contrast, before a further instruction (`, and take ...`), and at the comma
    after a condition.
    """
    conditions = {mark.first for mark in marks if mark.kind in ("if", "taken")}
    clauses, clause, is_condition = [], 0, False
    for i, token in enumerate(tokens):
        is_condition = is_condition or i in conditions
        starts = token.word == ";" or token.word in _CONTRASTS
        if token.word in (",", "and", "then", "so"):
            subject = token.word == "," and i + 1 < len(tokens) and tokens[i + 1].word in _SENTENCE_STARTS
            ahead = i
            while ahead < min(i + 5, len(tokens)) and tokens[ahead].word in _BEFORE_IMPERATIVE:
                ahead += 1
            starts = ahead < len(tokens) and tokens[ahead].word in _IMPERATIVES
            starts = starts or subject or (token.word == "," and is_condition)
        if starts and i:
            clause, is_condition = clause + 1, i in conditions
        clauses.append(clause)
    return clauses


Statuses = list[tuple[Mark, str]]


def drug_statuses(sentence: Sentence) -> Statuses:
    """Return each drug of a sentence with its status.

    "advised": the reader is told to take it, or that it is fine. "taken": the reader already takes it. "conditional":
    it is part of a condition or question. "forbidden": the sentence advises against it or warns. "story": history, a
    study, a case or another person. "mentioned": none of these.
    """
    drugs = [mark for mark in sentence.marks if mark.kind == "drug"]
    if not drugs:
        return []
    if sentence.has("hypothetical", "history", "study", "somebody"):
        return [(drug, "story") for drug in drugs]
    if sentence.has("warn") and not sentence.has("reassure"):  # a warning beside an instruction does not undo it
        return [(drug, "advised" if _is_instructed(drug, sentence) else "forbidden") for drug in drugs]
    return [(drug, _status(drug, sentence)) for drug in drugs]


def _is_instructed(drug: Mark, sentence: Sentence) -> bool:
    """Return whether the clause of a drug tells the reader to take it: `take A with B`, unlike `use of A` and
    `keep two weeks between A and B`."""
    if _status(drug, sentence) != "advised" or any(token.word in ("between", "apart") for token in sentence.tokens):
        return False
    after = [*(token.word for token in sentence.tokens), "", ""]
    return any(
        mark.kind == "verb"
        and mark.last < drug.first
        and sentence.clauses[mark.first] == sentence.clauses[drug.first]
        and _is_directive(mark, sentence)
        and after[mark.last + 1] not in ("of", "care", "with", "caution")
        for mark in sentence.marks
    )


def _status(drug: Mark, sentence: Sentence) -> str:
    clause = [mark for mark in sentence.marks if sentence.clauses[mark.first] == sentence.clauses[drug.first]]
    for mark in clause:
        if mark.kind == "prohibit_both" or (mark.kind == "prohibit_forward" and mark.last < drug.first):
            return "forbidden"
    for mark in reversed(clause):
        if mark.kind in ("if", "taken") and mark.first < drug.first:
            between = {token.word for token in sentence.tokens[mark.last + 1 : drug.first]}
            if not between & _CONDITION_ENDS:
                return "taken" if mark.kind == "taken" else "conditional"
    if sentence.is_question:
        return "conditional"
    drugs = [mark for mark in clause if mark.kind == "drug"]
    for mark in clause:  # `alcoholic drink` does not advise to drink
        directs = mark.kind in ("advise", "reassure") or (mark.kind == "verb" and _is_directive(mark, sentence))
        if directs and not any(d.first <= mark.first <= d.last for d in drugs):
            return "advised"
    return "mentioned"


def _is_directive(verb: Mark, sentence: Sentence) -> bool:
    """Return whether a verb addresses the reader: `take ...`, `you can take ...`, but not `people take ...`."""
    before = sentence.tokens[verb.first - 1].word
    return verb.first == 0 or not before[0].isalpha() or before in _BEFORE_DIRECTIVE


def are_alternatives(first: Mark, second: Mark, sentence: Sentence) -> bool:
    """Return whether two drugs of a sentence are not taken together: `A or B`, `A instead of B`, `such as A and B`.

    So are a product and an ingredient that it is said to contain: `Percocet (oxycodone and acetaminophen)`.
    """
    between = range(first.last + 1, second.first)
    shared = not set(first.value.split("|")).isdisjoint(second.value.split("|"))
    if shared and any(sentence.tokens[i].word in _EXPLAINS for i in between):
        return True
    swaps = [mark for mark in sentence.marks if mark.kind == "switch"]
    if any(mark.first in between for mark in swaps):
        return True
    covered = {i for mark in sentence.marks if mark.kind == "drug" for i in range(mark.first, mark.last + 1)}
    end = second.last + 1  # becomes the end of the list that contains both
    while end < len(sentence.tokens) and (end in covered or sentence.tokens[end].word in _LIST_WORDS):
        end += 1
    is_list = all(i in covered or sentence.tokens[i].word in _LIST_WORDS for i in between)
    has_or = any(sentence.tokens[i].word == "or" for i in range(first.last + 1, end))
    if is_list and (has_or or not between):
        return True
    advice = [mark.first for mark in sentence.marks if mark.kind in ("advise", "verb", "reassure")]
    return any(
        swap.last < first.first and not any(swap.last < place < second.first for place in advice) for swap in swaps
    )


def is_denied(flag: Mark, sentence: Sentence, *kinds: str) -> bool:
    """Return whether a phrase is negated.

    It is if a negation, or a cue of one of `kinds`, precedes it in its clause with no new statement between (`I have
    no fever and my chest hurts`). A negation inside a concept (`isn't breathing`) does not apply to words after it.
    """
    clause = sentence.clauses[flag.first]
    for mark in sentence.of("no", *kinds):
        if mark.first < flag.first and sentence.clauses[mark.first] == clause:
            inside = any(0 <= mark.first - c.first <= 2 and mark.last < c.last for c in sentence.concepts)
            between = [token.word for token in sentence.tokens[mark.first : flag.first]]
            renewed = any(
                word in _SUBJECTS or (word in _RENEWING and before in _JOINS)
                for before, word in itertools.pairwise(between)
            )
            if not inside and not renewed:
                return True
    return False
