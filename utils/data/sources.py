"""Read the rows of a split, from a file or from a data set of the Hub."""

import dataclasses
import difflib
import itertools
import logging
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from utils.arguments import DataArguments, UserError
from utils.data.cleaning import clean_text, visible
from utils.data.delimited import SEPARATORS
from utils.data.files import file_format, read_table
from utils.hub import why_not_loaded

logger = logging.getLogger(__name__)

# Keys of `DataArguments` for each split: file, Hub split, fraction, maximum rows
KEYS = {
    "train": ("train_file", "train_split_name", "", "max_train_samples"),
    "validation": ("validation_file", "validation_split_name", "validation_fraction", "max_eval_samples"),
    "test": ("test_file", "test_split_name", "test_fraction", "max_predict_samples"),
}
# What a data set of csv files may set and still be read by `read_table`, which finds the separator by itself
PLAIN_FIELDS = {"name", "version", "data_dir", "data_files", "description", "sep", "delimiter", "chunksize"}
PLAIN_FORMATS = {"csv": (".csv", ".tsv"), "json": (".jsonl",)}  # `datasets` also takes .json for an object per line
CHOOSE = "choose one of these."

Rows = Iterator[tuple[int, dict[str, Any]]]


def read_split(
    args: DataArguments,
    split: str,
    columns: Sequence[str],
    index_column: str | None,
    cache_dir: str,
    class_names: dict[str, list[str]],
    counts: Counter[str],
    if_present: Sequence[str] = (),
) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Read the rows of a split from its file or from the Hub, after checking that the columns exist.

    Args:
        args: source of the rows.
        split: train, validation or test; must be set in `args`.
        columns: columns to read besides `id`. Class labels become names; -1 counts as missing.
        index_column: column whose class labels stay numbers.
        cache_dir: cache for data sets in local folders, so that no copy stays in the shared cache.
        class_names: filled with the names of each class label column, in the data set's order.
        counts: incremented by what was guessed about a text file, see `read_delimited`.
        if_present: columns to read as well, where there are any.

    Yields:
        file or data set, row number and values of each row.
    """
    file_key, name_key, *_ = KEYS[split]
    if args.train_file:
        name = getattr(args, file_key)
        known, rows = read_table(name, [*columns, *if_present, "id"], counts)
        check_columns(columns, known, name)
        return ((name, number, row) for number, row in rows)
    name = f"{args.dataset_name}[{getattr(args, name_key)}]"
    rows, features = _read_hub(args, name_key, name, columns, if_present, cache_dir, counts)
    named = [column for column in columns if column != index_column]
    features = {k: getattr(f, "feature", f) for k, f in features.items()}  # of a list, that of its values
    classes = {k: f for k, f in features.items() if k in named and hasattr(f, "int2str")}  # only ClassLabel has it
    class_names |= {column: feature.names for column, feature in classes.items()}
    return ((name, n, row | {k: _class_name(f, row.get(k)) for k, f in classes.items()}) for n, row in rows)


def given_splits(args: DataArguments) -> list[str]:
    """Return the splits that are given, after checking the keys of their sources."""
    if bool(args.dataset_name) == bool(args.train_file):
        found = "both are" if args.train_file else "neither is"
        raise UserError(f"`dataset_name` and `train_file`: {found} given: give exactly one.")
    given = ["train"]
    for split in ("validation", "test"):
        file_key, name_key, fraction_key, _ = KEYS[split]
        source, right, wrong = "train_file", file_key, name_key
        if args.dataset_name:
            source, right, wrong = "dataset_name", name_key, file_key
        if getattr(args, wrong):
            raise UserError(f"`{wrong}` cannot be combined with `{source}`: use `{right}`.")
        if getattr(args, right):
            given.append(split)
        elif not 0 < (fraction := getattr(args, fraction_key)) < 1:
            raise UserError(f"`{fraction_key}` is {fraction}: give a value between 0 and 1, or set `{right}`.")
    if len(given) == 1 and args.validation_fraction + args.test_fraction >= 1:
        found = f"`validation_fraction` + `test_fraction` is {args.validation_fraction} + {args.test_fraction}"
        raise UserError(f"{found}: give less than 1 in total, since train gets the rest.")
    for *_, key in KEYS.values():
        if getattr(args, key) is not None and getattr(args, key) < 1:
            raise UserError(f"`{key}` is {getattr(args, key)}: give 1 or more, or omit it to use all rows.")
    if args.streaming and args.max_train_samples is None:
        raise UserError("`streaming` needs `max_train_samples`: set the number of rows to read.")
    if not 0 < args.near_duplicate_threshold <= 1:
        threshold = args.near_duplicate_threshold
        raise UserError(f"`near_duplicate_threshold` is {threshold}: give more than 0, at most 1 (1 disables it).")
    return given


def column_names(args: DataArguments) -> list[str]:
    """Return the columns of the training rows."""
    if args.train_file:
        return read_table(args.train_file, [], Counter())[0]
    name = f"{args.dataset_name}[{args.train_split_name}]"
    with tempfile.TemporaryDirectory() as folder:
        rows, features = _read_hub(args, "train_split_name", name, None, [], folder, Counter())
        return list(features) or list(next(rows)[1])


def check_columns(columns: Sequence[str], known: Sequence[str], name: str) -> None:
    """Raise a UserError if a column is not among the `known` ones of a file or data set."""
    for column in columns:
        if column not in known:
            has, advice = ", ".join(f"`{visible(other)}`" for other in known), _advise(column, known)
            if not all(map(_is_like_a_name, known)):  # the first row of a file without a header is somebody's text
                has = f"{len(known)} columns, whose names look like a row"
                if advice == CHOOSE:
                    advice = "give it a header, or the ending .jsonl if its lines are JSON."
            raise UserError(f"column `{column}` is not in `{name}`, which has {has}: {advice}")


def _is_like_a_name(text: str) -> bool:
    short = len(text) <= 60 and len(text.split()) <= 8
    return short and any(map(str.isalpha, text)) and not set(text) & set('{}"')


def _advise(column: str, known: Sequence[str]) -> str:
    if len(known) == 1 and column in re.split(r"\W", known[0]):
        if set(known[0]) & set(SEPARATORS):
            return "remove the quotation marks around whole lines."
        return "say what stands between the fields in a first line, such as `sep=:`."
    if dialogues := {"messages", "conversations"} & set(known):
        return f"`{min(dialogues)}` has dialogues: train on them without naming columns."
    same = [other for other in known if clean_text(other).casefold() == clean_text(column).casefold()]
    near = same or difflib.get_close_matches(column, known, n=1, cutoff=0.6)
    return f"did you mean `{visible(near[0])}`?" if near else CHOOSE


def _read_hub(
    args: DataArguments,
    name_key: str,
    name: str,
    columns: Sequence[str] | None,
    if_present: Sequence[str],
    cache_dir: str,
    counts: Counter[str],
) -> tuple[Rows, dict[str, Any]]:
    """Return the rows and the features of a split; all columns if `columns` is None."""
    import datasets  # imported here: predict.py reads files without it

    split = getattr(args, name_key)
    try:
        builder = _find_builder(args, cache_dir)
        if _is_plain(builder):
            return _read_files(builder, split, name, columns or [], counts), builder.info.features or {}
        if args.streaming:
            dataset = builder.as_streaming_dataset(split=split)
        else:
            builder.download_and_prepare()
            dataset = builder.as_dataset(split=split)
        known = dataset.column_names or list(next(iter(dataset), {}))
    except UserError:
        raise
    except (ValueError, OSError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        key, advice = "dataset_name", "check the name, the connection and `hf auth login`, or use `train_file`"
        if Path(str(args.dataset_name)).is_dir():
            advice = "check the files of this folder, or use `train_file`"
        if re.search("(unknown|bad) split", str(error), re.IGNORECASE):
            key, advice = name_key, "choose one of these"
        found = f"`{key}` is `{getattr(args, key)}`, which fails to load from `{args.dataset_name}`"
        raise UserError(f"{found}: {why_not_loaded(error)}: {advice}.") from error
    if columns is not None:
        check_columns(columns, known, name)
        wanted = (*columns, *if_present, "id")
        dataset = dataset.select_columns([column for column in known if column in wanted])
    return enumerate(dataset), dataset.features or {}


def _find_builder(args: DataArguments, cache_dir: str) -> Any:
    """Return what loads the data set: without a connection, from the cache."""
    import datasets
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    name, configuration, revision = str(args.dataset_name), args.dataset_config_name, args.dataset_revision
    if Path(name).is_dir():
        return datasets.load_dataset_builder(name, configuration, cache_dir=cache_dir)
    try:
        builder = datasets.load_dataset_builder(name, configuration, revision=revision)
    except ConnectionError as error:
        builder, offline = None, error
    if builder and not (builder.name == "cache" and builder.info.builder_name in PLAIN_FORMATS):
        return builder
    # `datasets` keeps tables as it parsed them. The files themselves lie in the cache of the Hub.
    try:
        folder = snapshot_download(name, repo_type="dataset", revision=revision, local_files_only=True)
    except LocalEntryNotFoundError:
        if not builder:
            raise offline from None
        logger.warning("`%s` comes from a cache without its files: NA may be missing there, and a date a time", name)
        return builder
    return datasets.load_dataset_builder(folder, configuration, cache_dir=cache_dir)


def _is_plain(builder: Any) -> bool:
    """Whether a data set is of files that can be read as `train_file` would be, and that `datasets` would change."""
    if builder.name not in PLAIN_FORMATS:
        return False
    config, default = builder.config, type(builder.config)()
    names = [field.name for field in dataclasses.fields(config) if field.name not in PLAIN_FIELDS]
    options = [name for name in names if getattr(config, name) != getattr(default, name)]
    paths = [path for paths in config.data_files.values() for path in paths]
    options += [] if getattr(config, "sep", ",") in SEPARATORS else ["sep"]
    if not options and all(file_format(path) in PLAIN_FORMATS[builder.name] for path in paths):
        return True
    found = f"the options {', '.join(options)}" if options else "files of another name"
    changed = "NA and null are missing, 007 is 7" if builder.name == "csv" else "a date as text becomes a time"
    logger.warning("`%s` has %s, so `datasets` parses it: %s", builder.dataset_name, found, changed)
    return False


def _read_files(builder: Any, split: str, name: str, columns: Sequence[str], counts: Counter[str]) -> Rows:
    """Read a split of csv or jsonl files as `train_file` would. `datasets` would make None of NA and null, 7 of 007,
    1.0 of 1 where a value is missing, and 2020-01-01 00:00:00 of 2020-01-01."""
    import datasets

    files = {str(part): list(map(str, paths)) for part, paths in builder.config.data_files.items()}
    config = datasets.DownloadConfig(token=builder.token)
    manager = datasets.DownloadManager(builder.dataset_name, download_config=config, base_path=builder.base_path)

    def read(part: str, counts: Counter[str]) -> Iterator[dict[str, Any]]:
        for path in manager.download(files[part]):
            known, rows = read_table(path, [*columns, "id"], counts)
            check_columns(columns, known, name)
            yield from (row for _, row in rows)

    if split in files:
        return enumerate(read(split, counts))
    # A slice such as train[:10%], which needs the number of rows
    sizes = {part: sum(1 for _ in read(part, Counter())) if part in split else 0 for part in files}
    slices = datasets.ReadInstruction.from_spec(split).to_absolute(sizes)
    pieces = (itertools.islice(read(piece.splitname, counts), piece.from_, piece.to) for piece in slices)
    return enumerate(itertools.chain.from_iterable(pieces))


def _class_name(feature: Any, value: Any) -> Any:
    """Return the name of a class, which a csv file may hold as such or as a number; of a list, the names."""
    if isinstance(value, list):
        return [_class_name(feature, one) for one in value]
    number = feature.str2int(value) if isinstance(value, str) and value else value
    return None if number in (None, "") or number < 0 else feature.int2str(number)
