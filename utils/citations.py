"""Cite passages in an answer: each sentence is compared with the passages, and the citations shown are the ones found
this way, not those written by the model (post-hoc citation, Gao et al. 2023, arXiv:2305.14627). A small model writes
none: SmolLM2-135M in 50 answers, see benchmarks/retrieval.py.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from utils.factuality import find_hallucinations
from utils.factuality.assertions import SENTENCE
from utils.factuality.words import stem
from utils.retrieval import NO_SUPPORT, STOP_WORDS, Passage, headed, search_terms

# Share of a sentence's distinct words that a supporting passage must contain (benchmarks/retrieval.py)
MIN_OVERLAP = 0.7
CITATION = re.compile(r"\s*\[(\d+(?:\s*[,;]\s*\d+)*)\]")
MARK = re.compile(rf" \[(?:\d+|{NO_SUPPORT})\]")  # written by `cite`
WORD = re.compile(r"[^\W\d_]+(?:'t\b)?")
CLAUSE = re.compile(r"[,;:()]|\b(?:but|however|although|though|while|whereas|yet|except)\b", re.IGNORECASE)
NEGATION = re.compile(
    r"\b(?:no|not|never|without|neither|nor|none|nobody|nothing|cannot|avoid(?:s|ed|ing)?|lacks?|lacking|absence|unlikely|"
    r"rarely|seldom|hardly|contraindicated|against|rather than|instead of|fails? to|stop(?:s|ped|ping)?)\b|n't\b",
    re.IGNORECASE,
)
STOP_STEMS = {stem(word) for word in STOP_WORDS}
PREFIXES = ("un", "in", "im", "ir", "non", "dis", "ab")  # safe and unsafe, effective and ineffective
_PAIRS = (
    "increase raise higher high rise / decrease reduce lower low fall", "more / less fewer", "before / after",
    "take start continue use / stop avoid discontinue", "recommend advise / discourage contraindicate",
    "allow permit / forbid prohibit", "safe / dangerous harmful", "better improve / worse worsen", "always / never",
    "benign / malignant", "acute / chronic", "left / right", "hyper / hypo", "early / late", "male / female",
    "often common / rarely rare", "first / last",
)  # fmt: skip
OPPOSITES = [tuple({stem(word) for word in side.split()} for side in pair.split("/")) for pair in _PAIRS]
# Sentences that speak to a model
ORDER = re.compile(
    r"\b(?:ignore|disregard|forget|override|bypass)\b.{0,40}\b(?:question|instruction|prompt|passage|above|previous|rule)"
    r"|\byou are (?:now )?(?:an? )?(?:\w+ )?(?:assistant|model|chatbot|ai)\b|\bsystem prompt\b"
    r"|\b(?:answer|respond|reply|say|output)\b.{0,20}\b(?:only|exactly|always)\b|\bas an ai\b",
    re.IGNORECASE,
)


class Claim(NamedTuple):
    """A sentence of an answer.

    start, end: span in the answer without citations.
    cited: numbers (from 1) of the passages that the model cited.
    passage: number of the passage that supports it, or None.
    overlap: largest share of its words that a passage contains.
    """

    start: int
    end: int
    cited: tuple[int, ...]
    passage: int | None
    overlap: float


def find_support(answer: str, passages: Sequence[Passage]) -> tuple[str, list[Claim]]:
    """Find which passage supports each sentence of an answer.

    A passage supports a sentence if one of its sentences does. It contains at least `MIN_OVERLAP` of the words,
    compared by stem and with lay and clinical synonyms as equal; words of the passage's title do not count, since they
    are the topic. It affirms and denies the same (`has_same_polarity`). And `utils.factuality.find_hallucinations`
    finds nothing that it and the title lack (number, unit, drug, finding, negation, side). A sentence that gives
    orders to the model is data, and supports nothing. Cited passages are tried first. A sentence that combines words
    in another relation is not detected.

    Args:
        answer: answer, with or without citations such as [1] or [1, 2].
        passages: passages of the prompt, in order.

    Returns:
        The answer without citations, and a claim for each sentence that has words and is not a question.
    """
    plain, cited, last = "", [], 0
    for match in CITATION.finditer(answer):
        plain += answer[last : match.start()]
        cited += [(len(plain), int(number)) for number in re.findall(r"\d+", match[1])]
        last = match.end()
    plain += answer[last:]
    claims = []
    for match in SENTENCE.finditer(plain):
        words = set(search_terms(match[0]))
        if not words or match[0].rstrip().endswith(("?", "？", "؟")) or match[0].strip(" .").lower() == NO_SUPPORT:
            continue
        own = tuple(number for place, number in cited if match.start() < place <= match.end())
        found = [_best_sentence(match[0], words, passage) for passage in passages]
        order = sorted(range(len(found)), key=lambda i: (i + 1 not in own, -found[i][0]))
        support = next((i + 1 for i in order if found[i][1]), None)
        start = match.end() - len(match[0].lstrip())
        claims.append(Claim(start, match.end(), own, support, max((share for share, _ in found), default=0.0)))
    return plain, claims


def _best_sentence(claim: str, words: set[str], passage: Passage) -> tuple[float, bool]:
    """Return the largest share of a claim's words in a sentence of a passage, and whether one supports it."""
    title = set(search_terms(passage.title))
    wanted, best = words - title or words, 0.0
    is_supported = False
    for sentence in (match[0] for match in SENTENCE.finditer(passage.text)):
        share = len(wanted & set(search_terms(sentence))) / len(wanted)
        best = max(best, share)
        if share >= MIN_OVERLAP and not ORDER.search(sentence) and has_same_polarity(claim, sentence):
            is_supported = is_supported or not find_hallucinations(headed(passage._replace(text=sentence)), claim)
    return best, is_supported


def has_same_polarity(claim: str, known: str) -> bool:
    """Return whether two sentences affirm and deny the same of their common words, by simple rules: what follows a
    negation in its clause is denied, and one of two opposites, such as safe and unsafe, contradicts the other."""
    stems, others = ({stem(word) for word in WORD.findall(text.lower())} for text in (claim, known))
    for opposites in OPPOSITES:
        here, there = opposites if opposites[0] & stems else opposites[::-1]
        if here & stems and there & others and not there & stems and not here & others:
            return False
    words, known_words = (set(WORD.findall(text.lower())) for text in (claim, known))
    for word in words ^ known_words:
        theirs = known_words if word in words else words
        if any(word.startswith(prefix) and word[len(prefix) :] in theirs for prefix in PREFIXES):
            return False
    common = stems & others
    denied, denied_there = _denied(claim) & common, _denied(known) & common
    return bool(denied & denied_there) if denied or denied_there else True


def _denied(sentence: str) -> set[str]:
    """Return the stems that follow a negation in its clause."""
    found: set[str] = set()
    for clause in CLAUSE.split(sentence):
        if cue := NEGATION.search(clause):
            found |= {stem(word.lower()) for word in WORD.findall(clause[cue.end() :])} - STOP_STEMS
    return found


def cite(answer: str, passages: Sequence[Passage]) -> dict[str, Any]:
    """Replace the citations of the model by the passages that support each sentence.

    Returns:
        A dict: `prediction`, the answer, in which each claim ends in [1] or in [no passage supports this];
        `supported`, the share of claims that a passage supports, or None without claims; `wrong_citations`, the number
        of citations by the model that do not support their sentence; `passages`, dicts with `number` and `cited`.
    """
    plain, claims = find_support(answer, passages)
    cited = {claim.passage for claim in claims}
    for claim in reversed(claims):
        mark = f" [{claim.passage or NO_SUPPORT}]"
        end = claim.start + len(plain[claim.start : claim.end].rstrip(" .?!。！।۔"))
        plain = plain[:end] + mark + plain[end:]
    return {
        "prediction": plain.strip(),
        "supported": sum(claim.passage is not None for claim in claims) / len(claims) if claims else None,
        "wrong_citations": sum(number != claim.passage for claim in claims for number in claim.cited),
        "passages": [{"number": n, "cited": n in cited, **p._asdict()} for n, p in enumerate(passages, start=1)],
    }


def blank_citations(answer: str) -> str:
    """Replace the citations that `cite` added by as many spaces.

    Offsets do not change, and the safety checks do not take the "no" of [no passage supports this] for a negation.
    """
    return MARK.sub(lambda match: " " * len(match[0]), answer)
