"""One rule for what is the same key, for labels, their parents, groups and ids.

1. A value. 7.0 is 7 where it is a number, as in json and parquet. Texts are the same if they look the same: composed
   and decomposed accents, wide and narrow letters, ligatures, control and zero-width characters, white space of any
   kind and number, dashes, apostrophes and quotation marks do not count. Case, digits and all other marks count.
2. A column. 7 and 7.0 as texts, which a csv file has, are the same if all values are whole numbers with or without
   `.0`, and each split writes all of them in one way, or each number occurs in both. They are two in a column of
   codes, which has a value that no program writes for a number: 007, or 250.00. Other columns can be either, and are
   refused; of groups they are the same, which at worst keeps rows together that may be apart.
3. Keys that differ only in case, in zeros before or after a number, or in letters of other scripts that look the
   same, stay apart, and are reported.

NA, None and null are keys like others, but a group that is called unknown is none.

Labels become classes in the order of the data set, else sorted.
"""

import itertools
import logging
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import datasets

from utils.arguments import UserError
from utils.data.cleaning import PUNCTUATION_RUN, clean_characters, visible
from utils.data.splits import each_label

logger = logging.getLogger(__name__)

WHOLE = re.compile(r"(0|-?[1-9]\d*)(\.0)?")
CODE = re.compile(r"[-+]?0\d+(\.\d*)?|[-+]?\d+\.\d+0")
UNKNOWN = {
    "", "desconhecido", "desconocido", "inconnu", "keineangabe", "missing", "na", "nan", "nat", "nil", "nodata",
    "none", "notapplicable", "notavailable", "notknown", "notrecorded", "notspecified", "notstated", "null",
    "onbekend", "sconosciuto", "unassigned", "unbekannt", "undefined", "unk", "unknown", "unspecified", "неизвестно",
    "不明", "未知",
}  # fmt: skip
LOOK_ALIKE = str.maketrans(dict.fromkeys("‘’‚‛´`ʼ′", "'") | dict.fromkeys("“”„‟″", '"') | {"−": "-"})
OTHER_SCRIPTS = str.maketrans("АВЕЗКМНОРСТУХаеорсухіΑΒΕΖΗΙΚΜΝΟΡΤΥΧο", "ABE3KMHOPCTYXaeopcyxiABEZHIKMNOPTYXo")
MANY_TIMES = 10  # the size of the second largest group, from which the largest may be none
ROUNDED = re.compile(r"-?\d(\.\d+)?E\+\d+")  # what a spreadsheet makes of a long number
DIFFERENT = ("<super>", "<sub>", "<fraction>", "<circle>")  # 10² is not 102


def fold(value: str) -> str:
    """Return the form that all texts of the same look share: rule 1."""
    text = value.translate(LOOK_ALIKE)
    if not text.isascii():
        text = "".join(map(_fold_character, text)).translate(LOOK_ALIKE)
        text = re.sub("[\u034f\u200c\u200d\ufe00-\ufe0f]", "", text)
        text = "".join("-" if unicodedata.category(c) == "Pd" else c for c in text)
    return " ".join(clean_characters(text).split())


def alike(key: str) -> str:
    """Return the form shared by names that a reader takes for one: also without case, repeated punctuation and the
    white space around it."""
    text = re.sub(r"\s*([^\w\s])\s*", r"\1", fold(key))  # "A>B", a path, is "A > B"
    return PUNCTUATION_RUN.sub(r"\1", text).casefold()


def is_unknown(value: str) -> bool:
    """Whether a value says that there is none, such as nan, N/A, unknown or ?."""
    return re.sub(r"[\W_]+", "", fold(value).casefold()) in UNKNOWN


def find_keys(
    written: Sequence[Counter[str]], column: str, counts: Counter[str], groups: bool = False
) -> dict[str, str]:
    """Map the values of a column to their keys, and report what is merged, and what is similar and is not.

    Args:
        written: for each split, how many rows have each value.
        column: its name, for messages.
        counts: incremented by `merged_key_rows`, whose value is written unlike their key, by the `similar_keys` of
            rule 3, and by the `rounded_keys` of spreadsheets, which may name several things.
        groups: whether the values are groups. They may be of persons, so messages do not show them.

    Returns:
        value -> key, the most frequent of its spellings without stray characters.

    Raises:
        UserError: 7 and 7.0, which can be the same or not.
    """
    rows = sum(written, Counter[str]())
    rows.update(dict.fromkeys(set().union(*written), 0))  # names of classes that no row has
    folded = {value: fold(value) for value in sorted(rows)}
    numbers = _whole_numbers([{folded[value] for value in part} for part in written], folded, rows, column, groups)
    spellings: dict[str, list[str]] = defaultdict(list)
    for value, key in folded.items():
        spellings[numbers.get(key, key)].append(value)
    keys: dict[str, str] = {}
    for key, values in spellings.items():
        frequent = max(values, key=lambda value: rows[value])
        name = key if numbers else " ".join(clean_characters(frequent).split())
        keys |= dict.fromkeys(values, name)
    merged = [values for values in spellings.values() if len(values) > 1 or folded[values[0]] in numbers]
    counts["merged_key_rows"] += sum(rows[value] for values in merged for value in values if value != keys[value])
    _report(merged, rows, column, groups, "are written in several ways, and count as one each")
    near: dict[str, set[str]] = defaultdict(set)
    for name in keys.values():
        near[_near(name)].add(name)
    similar = [sorted(names) for names in near.values() if len(names) > 1]
    counts["similar_keys"] += sum(map(len, similar))
    of_key = Counter[str]()
    for value, name in keys.items():
        of_key[name] += rows[value]
    _report(similar, of_key, column, groups, "differ only in case, zeros or look-alike letters, and count as several")
    if rounded := sum(bool(ROUNDED.fullmatch(key)) for key in set(keys.values())):
        counts["rounded_keys"] += rounded
        logger.warning("`%s`: %d keys are numbers that a spreadsheet has rounded, as in 1.2E+11", column, rounded)
    return keys


def merge_keys(
    tables: dict[str, datasets.Dataset], column: str, own: Sequence[str], counts: Counter[str]
) -> tuple[dict[str, datasets.Dataset], dict[str, str]]:
    """Write each key of a column in one way. Also returns value -> key, for the names `own` of the data set, too."""
    written = [Counter(itertools.chain.from_iterable(map(each_label, table[column][:]))) for table in tables.values()]
    keys = find_keys([*written, Counter(dict.fromkeys(own, 0))], column, counts)
    if all(value == key for value, key in keys.items()):
        return tables, keys
    return {
        split: table.remove_columns(column)
        .add_column(column, [_renamed(value, keys) for value in table[column][:]])
        .select_columns(table.column_names)
        for split, table in tables.items()
    }, keys


def count_repeated_ids(tables: Mapping[str, datasets.Dataset], counts: Counter[str]) -> None:
    """Count and report rows with the id of another row of their split, or one that is similar as in rule 3."""
    for split, table in tables.items():
        ids = set(table["id"][:])
        if repeated := len(table) - len(ids):
            counts["repeated_ids"] += repeated
            logger.warning("`id`: %d rows of %s have the id of another row, and share its name", repeated, split)
        if similar := len(ids) - len({_near(fold(value)) for value in ids}):
            counts["similar_ids"] += similar
            logger.warning("`id`: %d ids of %s differ from others only in case, zeros or white space", similar, split)


def find_groups(values: Sequence[str], column: str, counts: Counter[str]) -> list[str | None]:
    """Return the key of the group of each row, None where a row has no group; counted as `rows_without_group`."""
    written = Counter(values)
    unknown = {value for value in written if is_unknown(value)}
    without = sum(written.pop(value) for value in unknown)
    counts["rows_without_group"] += without
    if words := ", ".join(f"`{word}`" for word in sorted(set(map(fold, unknown)) - {""})):
        logger.warning("`%s`: %d rows have no group (%s): each stands alone", column, without, words)
    keys = find_keys([written], column, counts, groups=True)
    groups = [keys.get(value) for value in values]
    sizes = Counter(group for group in groups if group is not None)
    largest, second, *_ = [size for _, size in sizes.most_common(2)] + [0, 0]
    if second and (largest > len(groups) / 2 or largest >= MANY_TIMES * second):
        logger.warning("`%s`: one group has %d of %d rows: is it a word for unknown?", column, largest, len(groups))
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
    """Convert labels to `ClassLabel`, or lists of them. UserError for labels without training rows."""
    known = set(itertools.chain.from_iterable(map(each_label, pieces["train"][column][:])))
    for split, piece in pieces.items():
        unknown: dict[str, list[str]] = defaultdict(list)
        for row, labels in zip(piece["id"][:], piece[column][:], strict=True):
            for value in set(each_label(labels)) - known:
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

    def numbers(piece: datasets.Dataset) -> datasets.Dataset:
        values = [number[v] if isinstance(v, str) else [number[own] for own in v] for v in piece[column][:]]
        is_list = any(isinstance(value, list) for value in values)
        kind = datasets.List(feature) if is_list else feature
        return piece.remove_columns(column).add_column(column, values, feature=kind)

    return {split: numbers(piece) for split, piece in pieces.items()}


def _renamed(value: Any, keys: Mapping[str, str]) -> Any:
    """Return the key of a value, or those of a list of values."""
    return keys[value] if isinstance(value, str) else sorted({keys[own] for own in value})


def _fold_character(character: str) -> str:
    """Return a character without what sets its form apart: wide, narrow, no-break, ligature, positional."""
    if unicodedata.decomposition(character).startswith(DIFFERENT):
        return character
    return unicodedata.normalize("NFKC", character)


def _near(key: str) -> str:
    """Return the form shared by keys that differ only as rule 3 says."""
    number = re.sub(r"^\+|\.?0*$", "", key) if re.fullmatch(r"[-+]?\d+\.\d*", key) else key.removeprefix("+")
    return re.sub(r"(?<![\d.,])0+(?=\d)", "", number.translate(OTHER_SCRIPTS).casefold())


def _whole_numbers(
    splits: Sequence[set[str]], folded: Mapping[str, str], rows: Counter[str], column: str, groups: bool
) -> dict[str, str]:
    """Return 7.0 -> 7 for all such keys, where rule 2 says that they are the same."""
    found = set(folded.values()) - {""}
    floats = {key for key in found if re.fullmatch(r"-?\d+\.0", key)}
    both = sorted(key for key in floats if key[:-2] in found)
    if not both or any(map(CODE.fullmatch, found)):
        return {}
    one_way = all(part <= floats or not part & floats for part in splits)
    each_in_both = {key[:-2] for key in floats} == found - floats
    if not groups and not (all(map(WHOLE.fullmatch, found)) and (one_way or each_in_both)):
        of_key = Counter[str]()
        for value, key in folded.items():
            of_key[key] += rows[value]
        shown = "; ".join(f"`{k[:-2]}` ({of_key[k[:-2]]} rows) and `{k}` ({of_key[k]} rows)" for k in both[:3])
        raise UserError(
            f"`{column}` has {shown}, which may be the same number or two codes: write the same in one way, and give "
            "codes other names."
        )
    return {key: key[:-2] for key in floats}


def _report(found: Sequence[Sequence[str]], rows: Counter[str], column: str, groups: bool, what: str) -> None:
    """Log values that belong together, with their rows."""
    if found:
        total = sum(rows[value] for values in found for value in values)
        shown = "; ".join(
            " and ".join(f"'{visible(value)}' ({rows[value]} rows)" for value in values) for values in found[:3]
        )
        shown = "" if groups else f": {shown}"
        logger.warning("`%s`: %d keys (%d rows) %s%s", column, len(found), total, what, shown)
