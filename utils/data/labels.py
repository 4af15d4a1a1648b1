"""Convert labels into classes, with the data set's own names and order."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

import datasets

from utils.arguments import UserError
from utils.data.keys import alike


def frequency_groups(class_counts: list[int]) -> dict[str, list[int]]:
    """Group classes with over 100, 20 to 100, and under 20 training rows as `many_shot`, `medium_shot` and `few_shot`
    (Liu et al. 2019, Large-Scale Long-Tailed Recognition in an Open World)."""
    groups: dict[str, list[int]] = {"many_shot": [], "medium_shot": [], "few_shot": []}
    for number, count in enumerate(class_counts):
        groups["many_shot" if count > 100 else "medium_shot" if count >= 20 else "few_shot"].append(number)
    return groups


def label_names(written: Counter[str], column: str, own: Sequence[str] | None) -> list[str]:
    """Return the names of the classes in their order: the data set's own, else sorted, with numbers by size.

    Args:
        written: how many rows have each label, as its key.
        column: the column of the labels, for messages.
        own: names of the data set, in its order.

    Raises:
        UserError: only one label, or labels that differ only in case, repeated punctuation or white space beside it,
            since only the user can merge them.
    """
    spellings = defaultdict(list)
    for value in own or sorted(written):
        spellings[alike(value)].append(value)
    if several := [found for found in spellings.values() if len(found) > 1]:
        shown = "; ".join(" and ".join(f"{v!r} ({written[v]} rows)" for v in found) for found in several[:5])
        raise UserError(
            f"`{column}` has {len(several)} labels in several spellings that differ only in case, white space or "
            f"repeated punctuation: {shown}: use one spelling for each."
        )
    if len(written) < 2:
        raise UserError(f"`{column}` has only one label, {next(iter(written))!r}: give rows with two or more.")
    by_size = all(re.fullmatch(r"-?\d+(\.\d+)?", value) for value in written)
    return list(own or sorted(written, key=lambda value: (float(value) if by_size else 0, value)))


def as_classes(pieces: dict[str, datasets.Dataset], column: str, names: list[str]) -> dict[str, datasets.Dataset]:
    """Convert labels to `ClassLabel`. UserError for labels without training rows."""
    known = set(pieces["train"][column])
    for split, piece in pieces.items():
        unknown: dict[str, list[str]] = defaultdict(list)
        for row, value in zip(piece["id"], piece[column], strict=True):
            if value not in known:
                unknown[value].append(row)
        if unknown:
            shown = ", ".join(
                f"`{value}` ({len(rows)} rows: {', '.join(rows[:3])}{', ...' if len(rows) > 3 else ''})"
                for value, rows in list(unknown.items())[:10]
            )
            raise UserError(
                f"`{column}`: {len(unknown)} labels of the {split} split are not in the training rows: {shown}: add "
                f"training rows for them, remove them from {split}, or raise `max_train_samples` if it is set."
            )
    feature = datasets.ClassLabel(names=names)
    number = {value: i for i, value in enumerate(names)}
    return {
        split: piece.remove_columns(column).add_column(column, [number[v] for v in piece[column]], feature=feature)
        for split, piece in pieces.items()
    }
