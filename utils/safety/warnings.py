"""What an answer objects to: prohibitions and warnings, by the drugs, the pair or the danger that they name.

Boilerplate (`talk to your doctor if you have any questions`) objects to nothing.
"""

from typing import NamedTuple

from utils.safety.concepts import stem
from utils.safety.context import Sentence, Statuses

_KINDS = ("warn", "prohibit_both", "prohibit_forward", "care", "consult", "supervised")
_PROHIBIT = ("prohibit_both", "prohibit_forward")
# Words that stand for the drugs of the question
_BOTH = {
    "together", "both", "combination", "combining", "combine", "combined", "mix", "mixed", "mixing", "mixture", "pair",
    "interact", "interacts", "interaction", "interactions", "two", "them",
}  # fmt: skip
_IT = {"it", "this", "that", "these", "they"}
_TAKING = {
    "take", "taking", "use", "using", "combine", "mix", "have", "recommend", "recommended", "a", "the", "such", "any",
}  # fmt: skip
_MODALS = {"should", "must", "can", "may", "could", "shall", "shouldn't", "mustn't", "can't", "cannot"}
_GENERAL = {"need", "must", "level", "lose", "effect", "much", "higher", "sever", "dose", "from", "where", "with"}


class Objection(NamedTuple):
    """A sentence that warns or prohibits: generic names of its drugs, stems of its words, whether it is about all
    drugs of the question (`together`), and whether it prohibits."""

    drugs: frozenset[str]
    words: frozenset[str]
    of_all: bool
    prohibits: bool


class Objections(NamedTuple):
    """The objections of an answer, and whether it begins with a refusal (`No, ...`)."""

    refuses: bool
    sentences: tuple[Objection, ...]

    def prohibit(self, drugs: set[str]) -> bool:
        """Return whether the answer refuses, or advises against one of the drugs or their combination."""
        return self.refuses or any(o.prohibits and (o.of_all or not drugs.isdisjoint(o.drugs)) for o in self.sentences)

    def warn(self, drugs: set[str], danger: str) -> bool:
        """Return whether a sentence warns of one of the drugs, of their combination, or of the danger in words."""
        dangers = {stem(word) for word in danger.lower().replace(",", " ").replace(";", " ").split() if len(word) > 3}
        dangers -= _GENERAL
        return self.refuses or any(
            o.of_all or not drugs.isdisjoint(o.drugs) or not dangers.isdisjoint(o.words) for o in self.sentences
        )


def find_objections(sentences: list[Sentence], statuses: list[Statuses], asked: list[Sentence]) -> Objections:
    """Find the objections of an answer.

    An initial `No` is one too, except in reply to questions such as `do I need to stop it?`, and beside agreement.
    """
    first = [token.word for token in sentences[0].tokens[:2]] if sentences else ["no"]
    refuses = first[0] in ("no", "never") and (len(first) == 1 or not first[1][0].isalpha())
    asks_for_no = any(s.has("asks_for_no") for s in asked)
    refuses = refuses and not asks_for_no and not (sentences and sentences[0].has("reassure"))
    found = [
        _objection(sentence, marks)
        for sentence, marks in zip(sentences, statuses, strict=True)
        if sentence.has(*_KINDS) and not sentence.has("reassure")
    ]
    return Objections(refuses, tuple(found))


def _objection(sentence: Sentence, marks: Statuses) -> Objection:
    words = [token.word for token in sentence.tokens]
    drugs = {generic for mark, _ in marks for generic in mark.value.split("|")}
    drugs |= {mark.value for mark, _ in marks}
    of_all = _forbids_all(sentence, words)
    forbids = any(status == "forbidden" for _, status in marks) and sentence.has(*_PROHIBIT)
    forbids = forbids or of_all or (not marks and sentence.has("prohibit_both"))
    stems = frozenset(map(stem, words))
    return Objection(frozenset(drugs), stems, of_all or not _BOTH.isdisjoint(words), forbids)


def _forbids_all(sentence: Sentence, words: list[str]) -> bool:
    """Return whether a sentence forbids all drugs of the question: `it is not safe`, `avoid this combination`."""
    for mark in sentence.marks:
        if mark.kind in _PROHIBIT:
            before = words[mark.first - 1] if mark.first else ""
            after = [word for word in words[mark.last + 1 :] if word not in _TAKING] + ["."]
            if (before in _IT and words[mark.first] not in _MODALS) or after[0] in _BOTH:
                return True
            if after[0] in _IT and after[1] in (*_BOTH, ".", ",", "!"):
                return True
    return False
