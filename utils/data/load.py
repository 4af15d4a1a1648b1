"""Load data files or Hub data sets as clean splits that share no cluster, with a report of every step."""

import atexit
import dataclasses
import itertools
import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import datasets
import numpy as np
from datasets.arrow_writer import ArrowWriter

from utils.arguments import DataArguments, UserError
from utils.data.columns import Columns
from utils.data.keys import as_classes, count_repeated_ids, find_groups, label_names, merge_keys
from utils.data.leaks import describe_leaks
from utils.data.near_duplicates import near_duplicate_clusters, normalise
from utils.data.options import answer_warnings
from utils.data.rows import clean_rows, content_key
from utils.data.shapes import FORMATS, OPTIONAL
from utils.data.sources import KEYS, given_splits, read_split
from utils.data.splits import (
    MIN_CLUSTERS,
    each_label,
    effective_number,
    fingerprint,
    join_clusters,
    shared_turns,
    split_by_cluster,
)

logger = logging.getLogger(__name__)
BATCH = 1000  # rows that are decoded at a time
REASONS = ("missing", "short", "ambiguous", "duplicate", "unlabelled", "leaks")


def load_splits(
    args: DataArguments,
    columns: Columns,
    *,
    cluster_columns: Sequence[str],
    key_columns: Sequence[str] = (),
    seed: int,
) -> tuple[datasets.DatasetDict, dict[str, Any]]:
    """Read, clean, de-duplicate and split; `train`, `validation` and `test` share no cluster.

    A given split is kept, but rows of train (and of validation) with a near-duplicate in a later given split are
    dropped. A missing split is cut from train in whole clusters. Clusters are near-duplicates in the
    `cluster_columns`, merged with rows of equal input (and optional columns) and equal `group_column`. A dialogue
    counts with all its turns, and is joined with the rows that end where one of its turns does. The rows are stored in
    a temporary folder that is deleted when the process ends, not in a cache, so no stale data is read and no patient's
    text is left behind.

    Args:
        args: source, cleaning and splitting options.
        columns: the columns of the data set; labels stratify the splits.
        cluster_columns: columns compared for near-duplicates.
        key_columns: further columns of names, such as the parents of labels, which serving does not have.
        seed: seed of splits, samples and MinHash, unless `args.split_seed` is given.

    Returns:
        the splits and the report. The splits have the columns `id` (from the file, or "<split>-<row number>"), the
        columns named above (as stripped text), the options as a list (in their column, or `options` for several), the
        index as int, kept columns and `group_column` as text, the label as a `ClassLabel` in the data set's own
        order (else sorted), and `_cluster` (int). The report for all_results.json has counts over all splits as
        `data_*`, `<split>_rows`, and `<split>_sha256` (of the rows without `id` and `_cluster`).

    Raises:
        UserError: for any mistake in arguments, files, columns or rows, and for an empty split.
    """
    given = given_splits(args)
    seed = seed if args.split_seed is None else args.split_seed
    roles = columns.given
    created = (["options"] if len(columns.lists) > 1 else []) + (["history"] if columns.has_turns else [])
    created += [columns.input] if columns.parts else []
    others = [name for name in (args.group_column, *columns.kept, *key_columns, *cluster_columns) if name]
    _check_roles([*roles, *created], others)
    taken = {*roles, *created} - set(columns.parts)
    extra = [name for name in dict.fromkeys(others) if name not in taken]
    columns = dataclasses.replace(columns, kept=tuple(name for name in extra if name != "id"))
    label_column = columns.label
    needed = list(dict.fromkeys([*(FORMATS[columns.dataset_format] if columns.has_turns else roles), *extra]))

    folder = tempfile.mkdtemp(prefix="rows-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    counts: dict[str, Counter[str]] = {split: Counter() for split in KEYS}
    tables: dict[str, datasets.Dataset] = {}
    class_names: dict[str, list[str]] = {}
    notes: Counter[str] = Counter()
    for split in given:
        optional = OPTIONAL.get(columns.dataset_format, ())
        raw = read_split(args, split, needed, columns.index, folder, class_names, notes, optional)
        clean = clean_rows(raw, split, columns, args, counts[split])
        limited = itertools.islice(clean, getattr(args, KEYS[split][3]) if args.streaming else None)
        tables[split] = _write(limited, columns, f"{folder}/{split}.arrow")
        _warn(split, columns, counts[split])
        if not len(tables[split]):
            raise UserError(_empty_message(split, counts[split]))

    names: list[str] = []
    for column in dict.fromkeys(name for name in (label_column, *key_columns) if name):
        tables, keys = merge_keys(tables, column, class_names.get(column, []), notes)
        if column == label_column:
            written = Counter(v for table in tables.values() for row in table[column][:] for v in each_label(row))
            names = label_names(written, column, [keys[name] for name in class_names.get(column, [])])
    count_repeated_ids(tables, notes)

    texts = (
        " ".join(" ".join(text) if isinstance(text, list) else text for text in row.values())
        for table in tables.values()
        for row in iter_rows(table.select_columns([*(["history"] if columns.has_turns else []), *cluster_columns]))
    )
    near = near_duplicate_clusters(texts, args.near_duplicate_threshold, seed)
    groups: list[str | None] = [None] * len(near)
    if args.group_column:
        values = [value for table in tables.values() for value in table[args.group_column][:]]
        groups = find_groups(values, args.group_column, notes)
    turns, conflicts = _compare_inputs(tables.values(), columns)
    clusters = join_clusters(near, *shared_turns(turns), groups)
    pieces = _split(tables, clusters, args, label_column, seed, counts)

    total = sum(counts.values(), Counter())
    report: dict[str, Any] = {"data_rows_read": total["read"]}
    report |= {f"data_dropped_{reason}": total[reason] for reason in REASONS}
    report |= {"data_dropped_turns": total["turns"]} if columns.has_turns else {}
    report |= {
        "data_changed_symbols": total["symbols"],
        "data_changed_whitespace": total["whitespace"],
        "data_clusters": len(set(clusters)),
        "data_near_duplicate_rows": sum(size for size in Counter(near).values() if size > 1),
        "data_conflicting_inputs": len(conflicts),
        "data_conflicting_rows": sum(conflicts),
        **{f"data_{note}": number for note, number in notes.items() if number},
        **{f"data_{name}": total[name] for name in sorted(total) if name.startswith(("rows_", "answers_"))},
    }
    for number, (split, piece) in enumerate(pieces.items()):
        if not len(piece):
            raise UserError(_empty_message(split, counts["train"] if split not in given else counts[split]))
        limit = getattr(args, KEYS[split][3])
        if limit and limit < len(piece):
            rows = np.random.default_rng([seed, number]).permutation(len(piece)).tolist()
            if label_column:  # one row per label first, so that a small sample keeps rare labels
                labels = piece[label_column][:]
                first = {label: row for row in reversed(rows) for label in each_label(labels[row])}
                kept = set(first.values())
                rows.sort(key=lambda row: row not in kept)
            pieces[split] = piece = piece.select(sorted(rows[:limit]))
        report[f"{split}_rows"] = len(piece)
        report[f"{split}_sha256"] = fingerprint(iter_rows(piece.remove_columns(["id", "_cluster"])))
    report |= describe_leaks(pieces["train"], columns, key_columns)
    if label_column:
        pieces = as_classes(pieces, label_column, names)
    _log_sizes(pieces, total["read"], args.evaluate_test)
    return datasets.DatasetDict(pieces), report


def iter_rows(table: datasets.Dataset) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table as its own iterator does, but decoded by the batch, which is many times faster."""
    for batch in table.iter(batch_size=BATCH):
        yield from (dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True))


def _check_roles(roles: Sequence[str], others: Sequence[str]) -> None:
    if twice := [name for name, count in Counter(roles).items() if count > 1]:
        raise UserError(f"column `{twice[0]}` is given two roles: give each column one, or rename it in the data.")
    if "id" in roles:
        raise UserError("column `id` names the rows and cannot have another role: choose another, or rename it.")
    if "_cluster" in (*roles, *others):
        raise UserError("column `_cluster` is written by the splits: rename it in the data.")


def _write(rows: Iterable[dict[str, Any]], columns: Columns, path: str) -> datasets.Dataset:
    """Stream rows into a memory-mapped Arrow file."""
    text = datasets.Value("string")
    features = dict.fromkeys(("id", *columns.texts), text)
    if columns.options:
        features[columns.options] = datasets.List(text)
    if columns.label_list:
        features[str(columns.label)] = datasets.List(text)
    if columns.index:
        features[columns.index] = datasets.Value("int64")
    if columns.has_turns:
        features["history"] = datasets.List(text)
    features |= dict.fromkeys(columns.kept, text)
    with ArrowWriter(path=path, features=datasets.Features(features)) as writer:
        for row in rows:
            writer.write(row)
        writer.finalize()
    return datasets.Dataset.from_file(path)


def _compare_inputs(tables: Iterable[datasets.Dataset], columns: Columns) -> tuple[list[list[bytes]], list[int]]:
    """Return keys of the input of each row, one per turn of the user, and the number of rows of each question (turns,
    optional columns and options) that has several answers."""
    keys, rows, answers, several = [], Counter[bytes](), dict[bytes, bytes](), set[bytes]()
    for row in itertools.chain.from_iterable(map(iter_rows, tables)):
        turns = [*(row["history"] if columns.has_turns else ()), row[columns.input]]
        question = [*turns, *(row[name] for name in columns.optional)]
        earlier = [[*turns[:end], *("" for _ in columns.optional)] for end in range(1, len(turns), 2)]
        keys.append([content_key(map(normalise, texts)) for texts in (*earlier, question)])
        asked = content_key([*question, row[columns.options] if columns.options else None])
        rows[asked] += 1
        answer = content_key(row[name] for name in (columns.target, columns.index) if name)
        if answers.setdefault(asked, answer) != answer:
            several.add(asked)
    return keys, [rows[asked] for asked in answers if asked in several]


def _warn(split: str, columns: Columns, counts: Counter[str]) -> None:
    """Warn about what may be wrong with the rows of a split as a whole."""
    if dropped := counts["turns"]:
        logger.warning("%s: %d rows dropped, whose turns do not alternate between user and assistant", split, dropped)
    if own := counts["rows_with_system_turn"]:
        logger.info("%s: %d rows have a system turn of their own; `system_prompt` is for the others", split, own)
    for warning in answer_warnings(counts, columns.index_base):
        logger.warning("%s, `%s`: %s", split, columns.index, warning)


def _log_sizes(pieces: dict[str, datasets.Dataset], read: int, evaluate_test: bool) -> None:
    """Log rows and clusters of each split, and warn before the training if the test has too few to tell anything."""
    sizes = {split: np.unique(piece["_cluster"], return_counts=True)[1] for split, piece in pieces.items()}
    said = ", ".join(f"{split} {len(pieces[split]):,} rows of {len(own):,} clusters" for split, own in sizes.items())
    logger.info("data: %s rows read; %s", f"{read:,}", said)
    if evaluate_test and (units := effective_number(sizes["test"])) < MIN_CLUSTERS:
        logger.warning(
            "test: %d clusters of rows, as good as %.3g of equal size: intervals and p-values need %d, so no number "
            "has one. Raise `test_fraction` or `max_predict_samples`, or add patients or documents, not rows.",
            len(sizes["test"]),
            units,
            MIN_CLUSTERS,
        )


def _split(
    tables: dict[str, datasets.Dataset],
    clusters: list[int],
    args: DataArguments,
    label_column: str | None,
    seed: int,
    counts: dict[str, Counter],
) -> dict[str, datasets.Dataset]:
    """Drop rows that leak into a later given split, then cut the missing splits from train."""
    numbers = iter(clusters)
    tables = {
        split: table.add_column("_cluster", list(itertools.islice(numbers, len(table))))
        for split, table in tables.items()
    }
    taken: set[int] = set()
    for split in reversed(tables):
        own = tables[split]["_cluster"][:]
        rows = [row for row, cluster in enumerate(own) if cluster not in taken]
        counts[split]["leaks"] = len(own) - len(rows)
        tables[split] = tables[split].select(rows)
        taken.update(own)
    if cut := {split: getattr(args, KEYS[split][2]) for split in KEYS if split not in tables}:
        train = tables["train"]
        shares = {"train": 1 - sum(cut.values())} | cut
        labels = train[label_column][:] if label_column else None
        places = split_by_cluster(train["_cluster"][:], shares, seed, labels)
        for split in shares:
            tables[split] = train.select([row for row, place in enumerate(places) if place == split])
    return {split: tables[split] for split in KEYS}


def _empty_message(split: str, counts: Counter) -> str:
    dropped = ", ".join(f"{counts[reason]} {reason}" for reason in (*REASONS, "turns") if counts[reason]) or "none"
    advice = (
        "Check the columns, `min_input_words`, `min_target_words`, `drop_ambiguous`, and that `group_column` has "
        "several groups, or add rows."
    )
    if counts["leaks"] > counts["read"] / 2:
        advice = "Most rows have a twin, or a row of their group, in a later split: give splits with other rows."
    return (
        f"`{split}` has no rows: {counts['read']} were read, dropped {dropped}, and the rest went to other splits. "
        f"{advice}"
    )
