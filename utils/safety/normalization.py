"""Make a text plain before it is checked, and find spans again in the text as it was written.

Invisible characters, decomposed accents, full-width and mathematical letters, odd spaces, dashes and apostrophes hide
a word from every table: `ibu<soft hyphen>profen`. They come with copies from PDF files, web pages and phones.
"""

import unicodedata
from typing import Any, NamedTuple

import regex

# Format and control characters, and what Unicode ignores by default: soft hyphen, zero-width, direction, variation
_HIDDEN = r"\p{Cf}\p{Default_Ignorable_Code_Point}\x00-\x08\x0e-\x1b\x7f"
# Half- and full-width forms, ligatures, letters and digits of mathematics, circled letters
_COMPATIBLE = "\uff00-\uffef\ufb00-\ufb06\U0001d400-\U0001d7ff\u24b6-\u24e9"
_SPACES = {" ": r"[\p{Zs}--\ ]", "\n": "[\u2028\u2029\x85]"}
_SIGNS = {
    "-": "[\u2010-\u2012\u2043\u2212\ufe63]",
    "\u2014": "\u2015",
    "'": "[\u2018\u201b\u02b9\u02bc\u02bb\u00b4\u2032]",
}
_PLAIN = {plain: regex.compile(odd, regex.V1) for plain, odd in (_SPACES | _SIGNS).items()}
_ODD = "|".join(pattern.pattern for pattern in _PLAIN.values())
# What may change: a character with what is joined to it, and odd characters
_CHANGES = regex.compile(rf"[^\p{{M}}]?[\p{{M}}{_HIDDEN}]+|[{_COMPATIBLE}]|{_ODD}", regex.V1)
_WITHIN_A_WORD = regex.compile("(?<=\\w)\u2013(?=\\w)")  # between spaces a dash ends a clause
_KEPT, _DROPPED = regex.compile(f"[^{_HIDDEN}]", regex.V1), regex.compile(f"[{_HIDDEN}]+", regex.V1)
_WIDE = regex.compile(f"[{_COMPATIBLE}]", regex.V1)


class Plain(NamedTuple):
    """A plain text, and for each of its characters where it begins and ends in the text as it was written."""

    text: str
    starts: list[int]
    ends: list[int]

    def span(self, start: int, end: int) -> list[int]:
        """Return the span of the written text that `start` and `end` (exclusive) of the plain text stand for."""
        if not self.text or start >= len(self.text):
            at = self.ends[-1] if self.ends else 0
            return [at, at]
        return [self.starts[start], max(self.starts[start], self.ends[end - 1])]

    def in_original(self, findings: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return findings with their spans in the written text."""
        return [finding | {"span": self.span(*finding["span"])} for finding in findings]


def normalize(text: str) -> Plain:
    """Make a text plain: NFC, no invisible characters, plain letters, digits, spaces, hyphens and apostrophes.

    Characters that are plain keep their place in time that is linear in the length.
    """
    pieces: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    at = 0

    def add(piece: str, first: list[int], last: list[int]) -> None:
        pieces.append(piece)
        starts.extend(first)
        ends.extend(last)

    for change in _CHANGES.finditer(text):
        start, stop = change.span()
        add(text[at:start], list(range(at, start)), list(range(at + 1, start + 1)))
        at = stop
        shown = [match.start() for match in _KEPT.finditer(change[0])]
        if shown:
            piece = _plain(change[0])
            add(piece, [start + shown[0]] * len(piece), [start + shown[-1] + 1] * len(piece))
    add(text[at:], list(range(at, len(text))), list(range(at + 1, len(text) + 1)))
    return Plain(_WITHIN_A_WORD.sub("-", "".join(pieces)), starts, ends)


def _plain(cluster: str) -> str:
    shown = _DROPPED.sub("", cluster)
    shown = _WIDE.sub(lambda wide: unicodedata.normalize("NFKC", wide[0]), unicodedata.normalize("NFC", shown))
    for plain, odd in _PLAIN.items():
        shown = odd.sub(plain, shown)
    return shown


def normalize_context(context: Any) -> Any:
    """Return a `patient_context` with every text in it made plain; anything else is left as it is."""
    if isinstance(context, str):
        return normalize(context).text
    if isinstance(context, dict):
        return {key: normalize_context(value) for key, value in context.items()}
    return [normalize_context(value) for value in context] if isinstance(context, list | tuple) else context
