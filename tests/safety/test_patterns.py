"""No text may hold a process: every pattern takes time that grows with the text, and no faster than its square."""

import importlib
import pkgutil
import re
import time
from collections.abc import Iterator

import pytest

import utils

ROOMS = ("safety", "factuality", "retrieval", "data", "metrics")
PIECES = [
    "take 2 tablets ", "a", "1", "1,000", "(", " ", "500 mg ", "2 x ", "two ", "a (b ", "- ", "' ", "a-b ", "1 2 ",
    ". ", "\t", "every 4 hours ", "no more than ", "up to ", "Dr. ", "1.", "-", "/", "maximum aa ", "of the ", "not ",
    "one", "1/", "mg", "half a ", "A.", "aA", "\u0661 ", "i have ", "\n", "\u200b", "1-", "hundred ", "twice a ",
]  # fmt: skip
FRAMES = [("", ""), ("2 tablets ", "!"), ("take 2 doses ", "\0"), ("", "mg"), ("no more than ", " a day")]


def patterns() -> Iterator[tuple[str, re.Pattern]]:
    """Every compiled pattern of the rooms that read texts of users and models."""
    for info in pkgutil.walk_packages(utils.__path__, "utils."):
        if info.name.split(".")[1] in ROOMS and not info.name.endswith("__main__"):
            for name, value in vars(importlib.import_module(info.name)).items():
                yield from found_in(value, f"{info.name}.{name}")


def found_in(value: object, name: str) -> Iterator[tuple[str, re.Pattern]]:
    if isinstance(value, re.Pattern) and isinstance(value.pattern, str):
        yield name, value
    elif isinstance(value, dict | list | tuple | set | frozenset):
        for i, item in enumerate(value.values() if isinstance(value, dict) else value):
            yield from found_in(item, f"{name}[{i}]")


PATTERNS = dict(patterns())


def test_there_are_patterns():
    assert len(PATTERNS) > 50


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_is_fast_on_texts_that_almost_match(name):
    # 250 characters cost an exponential pattern minutes, 2,000 a quadratic one some milliseconds; the longer text is
    # tried only where the shorter one is fast
    for size, seconds in ((60, 0.05), (250, 0.2), (2000, 1.0)):
        for piece in PIECES:
            for before, after in FRAMES:
                text = (before + piece * size)[:size] + after
                start = time.process_time()
                for _ in PATTERNS[name].finditer(text):
                    pass
                spent = time.process_time() - start
                assert spent < seconds, (size, piece, before, after)
