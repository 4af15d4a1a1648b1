"""Data files or Hub data sets -> clean, de-duplicated splits that share no cluster, and a report of every step.

    python -m utils.data --train_file notes.csv --text_column note --label_column ward --output_dir clean

writes train.jsonl, validation.jsonl and test.jsonl and prints the report as JSON.
"""

import atexit
import itertools
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import datasets
import numpy as np
from datasets.arrow_writer import ArrowWriter

from utils.arguments import DataArguments, UserError
from utils.data.cleaning import Columns, clean_rows, content_key
from utils.data.files import KEYS, read_split
from utils.data.labels import as_classes, label_names
from utils.data.splits import fingerprint, join_clusters, near_duplicate_clusters, normalise, split_by_cluster

REASONS = ("missing", "short", "ambiguous", "duplicate", "unlabelled", "leaks")


def load_splits(
    args: DataArguments,
    *,
    input_column: str,
    target_column: str | None,
    optional_columns: Sequence[str] = (),
    kept_columns: Sequence[str] = (),
    list_columns: Sequence[str] = (),
    index_column: str | None = None,
    cluster_columns: Sequence[str],
    label_column: str | None = None,
    seed: int,
) -> tuple[datasets.DatasetDict, dict[str, Any]]:
    """Read, clean, de-duplicate and split; the splits `train`, `validation` and `test` share no cluster.

    A split that is given is kept; rows of train (and of validation) with a twin in a later given split are dropped
    from it. A split that is not given is cut from train in whole clusters. Clusters are near-duplicates of the
    `cluster_columns`, joined with equal input (and optional columns) and with `group_column`. The rows lie in a
    temporary folder that goes when the process ends, not in a cache: nothing stale is read, no patient's text stays.

    Args:
        args: where the rows are and how to clean and split them.
        input_column, target_column: the text that goes in and the text or label that comes out; both required in
            a row, or it is dropped as missing.
        optional_columns: further text, may be empty in a row.
        kept_columns: further columns, as text; in addition to `keep_columns`.
        list_columns: one column of lists of options, or two or more columns with an option each.
        index_column: place of the right option, from 0; -1 drops the row as unlabelled.
        cluster_columns: which of the columns above are compared for near-duplicates.
        label_column: labels whose shares the cut splits keep.
        seed: of the split, the samples and the MinHash, unless `args.split_seed` is given.

    Returns:
        the splits, with the columns `id` (the file's, or "<split>-<row number>"), the columns named above (text,
        stripped), the options as a list under their column's name or `options` for several, the index as int,
        `group_column` and `keep_columns` as text, `label_column` as a `ClassLabel` with the data set's own names and
        order (else sorted), and `cluster` (int); and the report for all_results.json: counts
        over all splits as `data_*`, `<split>_rows` and `<split>_sha256` (of the rows without `id` and `cluster`).

    Raises:
        UserError: for every mistake in arguments, files, columns and rows, and for a split without rows.
    """
    given = _check(args)
    seed = seed if args.split_seed is None else args.split_seed
    parts = [input_column, target_column, *optional_columns, *list_columns, index_column]
    parts = [name for name in parts if name]
    twice = [name for name, count in Counter(parts).items() if count > 1 or name in ("id", "cluster")]
    twice += [name for name in (args.group_column, *(args.keep_columns or ()), *kept_columns) if name == "cluster"]
    if twice:
        raise UserError(
            f"column `{twice[0]}` cannot be used here: give each column one part, and none to id, cluster."
        )
    made = ["options"] if len(list_columns) > 1 else []
    extra = [args.group_column, *(args.keep_columns or ()), *kept_columns, label_column, *cluster_columns]
    extra = [name for name in dict.fromkeys(extra) if name and name not in (*parts, *made)]
    columns = Columns(
        input=input_column,
        target=target_column,
        optional=tuple(optional_columns),
        lists=tuple(list_columns),
        index=index_column,
        label=label_column,
        kept=tuple(name for name in extra if name != "id"),
    )

    folder = tempfile.mkdtemp(prefix="rows-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    counts = {split: Counter() for split in KEYS}
    tables, input_keys, targets, class_names = {}, [], defaultdict(Counter), {}
    for split in given:
        rows = read_split(args, split, [*parts, *extra], index_column, folder, class_names)
        rows = clean_rows(rows, split, columns, args, counts[split])
        rows = itertools.islice(rows, getattr(args, KEYS[split][3]) if args.streaming else None)
        tables[split] = _write(rows, columns, f"{folder}/{split}.arrow", input_keys, targets)
        if not len(tables[split]):
            raise UserError(_empty_message(split, counts[split]))

    names = label_names(tables, label_column, class_names.get(label_column)) if label_column else {}

    texts = (
        " ".join(" ".join(text) if isinstance(text, list) else text for text in row.values())
        for table in tables.values()
        for row in table.select_columns(list(cluster_columns))
    )
    near = near_duplicate_clusters(texts, args.near_duplicate_threshold, seed)
    groups = [None] * len(near)
    if args.group_column:
        groups = [value.strip() or None for table in tables.values() for value in table[args.group_column]]
    clusters = join_clusters(near, input_keys, groups)
    pieces = _split(tables, clusters, args, label_column, seed, counts)

    total = sum(counts.values(), Counter())
    conflicts = [found.total() for found in targets.values() if len(found) > 1]
    report = {"data_rows_read": total["read"]}
    report |= {f"data_dropped_{reason}": total[reason] for reason in REASONS}
    report |= {
        "data_changed_symbols": total["symbols"],
        "data_changed_whitespace": total["whitespace"],
        "data_clusters": len(set(clusters)),
        "data_near_duplicate_rows": sum(size for size in Counter(near).values() if size > 1),
        "data_conflicting_inputs": len(conflicts),
        "data_conflicting_rows": sum(conflicts),
    }
    for number, (split, piece) in enumerate(pieces.items()):
        if not len(piece):
            raise UserError(_empty_message(split, counts["train"] if split not in given else counts[split]))
        limit = getattr(args, KEYS[split][3])
        if limit and limit < len(piece):
            rows = np.random.default_rng([seed, number]).permutation(len(piece)).tolist()
            if label_column:  # one row of each label first: a small sample keeps the rare ones
                labels = piece[label_column][:]
                first = {labels[row]: row for row in reversed(rows)}
                rows.sort(key=lambda row: first[labels[row]] != row)
            pieces[split] = piece = piece.select(sorted(rows[:limit]))
        report[f"{split}_rows"] = len(piece)
        report[f"{split}_sha256"] = fingerprint(piece.remove_columns(["id", "cluster"]))
    if label_column:
        pieces = as_classes(pieces, label_column, names)
    return datasets.DatasetDict(pieces), report


def _check(args: DataArguments) -> list[str]:
    """The splits that the user gives. UserError for arguments that cannot be."""
    if bool(args.dataset_name) == bool(args.train_file):
        found = "both are" if args.train_file else "neither is"
        raise UserError(f"`dataset_name` and `train_file`: {found} given: give one of them.")
    given = ["train"]
    for split in ("validation", "test"):
        file_key, name_key, fraction_key, _ = KEYS[split]
        source, right, wrong = "train_file", file_key, name_key
        if args.dataset_name:
            source, right, wrong = "dataset_name", name_key, file_key
        if getattr(args, wrong):
            raise UserError(f"`{wrong}` does not go with `{source}`: use `{right}`.")
        if getattr(args, right):
            given.append(split)
        elif not 0 < getattr(args, fraction_key) < 1:
            found = f"`{fraction_key}` is {getattr(args, fraction_key)}"
            raise UserError(f"{found}: give one between 0 and 1, or give `{right}`.")
    if len(given) == 1 and args.validation_fraction + args.test_fraction >= 1:
        found = f"`validation_fraction` + `test_fraction` is {args.validation_fraction} + {args.test_fraction}"
        raise UserError(f"{found}: below 1 is allowed, train gets the rest.")
    for *_, key in KEYS.values():
        if getattr(args, key) is not None and getattr(args, key) < 1:
            raise UserError(f"`{key}` is {getattr(args, key)}: give 1 or more, or leave it out for all rows.")
    if args.streaming and args.max_train_samples is None:
        raise UserError("`streaming` is on without `max_train_samples`: say how many rows to read.")
    if not 0 < args.near_duplicate_threshold <= 1:
        found = args.near_duplicate_threshold
        raise UserError(f"`near_duplicate_threshold` is {found}: above 0 up to 1 is allowed (1 turns it off).")
    return given


def _write(
    rows: Iterable[dict[str, Any]],
    columns: Columns,
    path: str,
    input_keys: list[bytes],
    targets: dict[bytes, Counter],
) -> datasets.Dataset:
    """Stream rows into an Arrow file, memory-mapped on return. Appends one input key a row to `input_keys`, and
    counts the targets of each question (input, optional columns and options) in `targets`."""
    text = datasets.Value("string")
    features = dict.fromkeys(("id", *columns.texts), text)
    if columns.options:
        features[columns.options] = datasets.List(text)
    if columns.index:
        features[columns.index] = datasets.Value("int64")
    features |= dict.fromkeys(columns.kept, text)
    with ArrowWriter(path=path, features=datasets.Features(features)) as writer:
        for row in rows:
            writer.write(row)
            question = [row[name] for name in (columns.input, *columns.optional)]
            input_keys.append(content_key(map(normalise, question)))
            answer = content_key(row[name] for name in (columns.target, columns.index) if name)
            targets[content_key([*question, row.get(columns.options)])][answer] += 1
        writer.finalize()
    return datasets.Dataset.from_file(path)


def _split(
    tables: dict[str, datasets.Dataset],
    clusters: list[int],
    args: DataArguments,
    label_column: str | None,
    seed: int,
    counts: dict[str, Counter],
) -> dict[str, datasets.Dataset]:
    """Drop the rows that leak into a later given split, then cut the missing splits from train."""
    numbers = iter(clusters)
    tables = {
        split: table.add_column("cluster", list(itertools.islice(numbers, len(table))))
        for split, table in tables.items()
    }
    taken: set[int] = set()
    for split in reversed(tables):
        own = tables[split]["cluster"][:]
        rows = [row for row, cluster in enumerate(own) if cluster not in taken]
        counts[split]["leaks"] = len(own) - len(rows)
        tables[split] = tables[split].select(rows)
        taken.update(own)
    if cut := {split: getattr(args, KEYS[split][2]) for split in KEYS if split not in tables}:
        train = tables["train"]
        shares = {"train": 1 - sum(cut.values())} | cut
        labels = train[label_column][:] if label_column else None
        places = split_by_cluster(train["cluster"][:], shares, seed, labels)
        for split in shares:
            tables[split] = train.select([row for row, place in enumerate(places) if place == split])
    return {split: tables[split] for split in KEYS}


def _empty_message(split: str, counts: Counter) -> str:
    dropped = ", ".join(f"{counts[reason]} {reason}" for reason in REASONS if counts[reason]) or "none"
    return (
        f"`{split}` has no rows: {counts['read']} were read, dropped {dropped}, and the rest went to other splits. "
        "Check the columns, `min_input_words`, `min_target_words` and `drop_ambiguous`, whether `group_column` has "
        "several groups, or give more rows."
    )
