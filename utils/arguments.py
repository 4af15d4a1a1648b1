"""Parse recipes and command-line flags into dataclasses, once and strictly.

Each recipe key becomes a flag (`learning_rate: 2e-4` -> `--learning_rate 2e-4`). transformers' `HfArgumentParser` then
parses these flags followed by the command line, so the last value wins and one parser validates both. Its own
`parse_yaml_file` leaves `2e-4` a string and accepts any value for a field with choices.
"""

import argparse
import contextlib
import errno
import itertools
import json
import logging
import os
import pickle
import re
import sys
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm
from transformers import HfArgumentParser

from utils import keys
from utils.conflicts import find_conflict
from utils.json_files import write_text

logger = logging.getLogger(__name__)


class UserError(ValueError):
    """A mistake that the user can correct. The message is one line: the key, file, row or column in backticks, the
    value found, the values allowed, and what to do."""


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Print a `UserError`, or what a machine lacks, as one line `error: ...` on stderr, and exit with code 2. Any
    other exception is a defect and keeps its traceback."""
    try:
        yield
    except Exception as error:
        line = str(error) if isinstance(error, UserError) else known_failure(error)
        if line is None:
            raise
        for bar in list(tqdm._instances):  # else the error would stand at the end of a bar's line
            bar.close()
        line = "error: " + " ".join(line.split())
        print(line, file=sys.stderr, flush=True)
        if summary := os.environ.get("TORCHELASTIC_ERROR_FILE"):  # a launcher of several processes ends with it
            Path(summary).write_text(json.dumps({"message": line}))
        sys.exit(2)


def known_failure(error: BaseException) -> str | None:
    """Return what to do about a full disk, missing rights, too little memory or a pickle with code; else None."""
    text, file, number = f"{type(error).__name__}: {error}", "a file", 0
    if isinstance(error, OSError):
        file, number = f"`{error.filename}`" if error.filename else file, error.errno or 0
    elif found := re.search(r"os error (\d+)", text):  # of libraries in Rust
        number = int(found[1])
    if number in (errno.ENOSPC, errno.EDQUOT) or re.search("PytorchStreamWriter|unexpected pos|iostream error", text):
        return f"{file} cannot be written, since the disk is full: make room, then give the same command again."
    if number in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"{file} cannot be read or written ({os.strerror(number)}): change its rights, or choose another."
    if number in (errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE):  # a broken disk or network drive; ulimit -n
        return f"{file} cannot be read or written ({os.strerror(number)}): mend that, and give the command again."
    if isinstance(error, pickle.UnpicklingError):
        return "weights in a pickle hold more than tensors, which could be any code: give them as .safetensors."
    if "index out of range in self" in text or "device-side assert" in text:  # of torch's embeddings, and CUDA's
        return "a token has no embedding in the model: its tokenizer is of another model, or has tokens added since."
    if isinstance(error, MemoryError) or re.search("OutOfMemoryError|allocate memory|not enough memory", text):
        return (
            "the memory does not suffice: lower `per_device_train_batch_size` and raise `gradient_accumulation_steps` "
            "as much, lower `per_device_eval_batch_size` (`batch_size` of predict.py) or `max_length`, or set "
            "`gradient_checkpointing: true` or `load_in_4bit: true`. Checkpoints of earlier steps are kept."
        )
    return None


@contextlib.contextmanager
def library_checks(where: str) -> Iterator[None]:
    """Convert a library's argument checks into a `UserError`. Wrap constructors only, where a `ValueError` can only
    concern the arguments."""
    try:
        yield
    except UserError:  # a check of our own
        raise
    except (ValueError, TypeError, NotImplementedError, ImportError) as error:
        raise UserError(f"{where}: {NO_BF16 if 'bf16/gpu' in str(error) else error}") from error


# transformers names neither the key nor what a CPU takes
NO_BF16 = (
    "`bf16` is true, the default of run_qa_sft.py, and this machine has no GPU that computes it. On a CPU set "
    "`use_cpu: true`, with which `bf16: true` works, too, or set `bf16: false`; on an older GPU set `fp16: true`."
)
LONG_TEXTS = ("head", "head_tail", "chunks")  # ways to read a text longer than the model's maximum


@dataclass
class DataArguments:
    """Where the rows come from and how they are cleaned and split, for all four scripts."""

    dataset_name: str | None = field(default=None, metadata={"help": "Hub data set; alternative to `train_file`."})
    dataset_config_name: str | None = field(
        default=None, metadata={"help": "Configuration of the Hub data set.", "needs": ("dataset_name", None)}
    )
    dataset_revision: str | None = field(
        default=None, metadata={"help": "Commit, tag or branch of the Hub data set.", "needs": ("dataset_name", None)}
    )
    train_split_name: str = field(
        default="train", metadata={"help": "Hub split for training.", "needs": ("dataset_name", None)}
    )
    validation_split_name: str | None = field(default=None, metadata={"help": "Hub split for validation."})
    test_split_name: str | None = field(default=None, metadata={"help": "Hub split for testing."})
    train_file: str | None = field(default=None, metadata={"help": "csv, tsv, jsonl, json or parquet; also .gz."})
    validation_file: str | None = field(default=None, metadata={"help": "Validation file, as `train_file`."})
    test_file: str | None = field(default=None, metadata={"help": "Test file, as `train_file`."})
    validation_fraction: float = field(default=0.1, metadata={"help": "Share of rows to hold out for validation."})
    test_fraction: float = field(default=0.1, metadata={"help": "Share of rows to hold out for testing."})
    split_seed: int | None = field(default=None, metadata={"help": "Seed of splits and samples; defaults to `seed`."})
    evaluate_test: bool = field(default=True, metadata={"help": "false stops after validation, without a report."})
    group_column: str | None = field(default=None, metadata={"help": "Keep rows of a group (patient) in one split."})
    keep_columns: list[str] | None = field(default=None, metadata={"help": "More columns for templates and code."})
    language: str | None = field(default=None, metadata={"help": "ISO 639 code, such as en; identified by default."})
    license: str | None = field(default=None, metadata={"help": "Licence of the model for its card: apache-2.0."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on a random sample of this size."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Validate on a random sample of this size."})
    max_predict_samples: int | None = field(default=None, metadata={"help": "Test on a random sample of this size."})
    min_input_words: int = field(default=2, metadata={"help": "Drop rows whose input has fewer words."})
    min_target_words: int = field(default=1, metadata={"help": "Drop rows whose target has fewer words."})
    drop_ambiguous: bool = field(default=True, metadata={"help": "Drop inputs of English stop words: Why is it?"})
    lowercase: bool = field(default=False, metadata={"help": "Lowercase all text; mg and Mg become the same."})
    strip_pattern: str | None = field(
        default=None, metadata={"help": "Regular expression of what to remove from inputs, such as `Keywords:.*`."}
    )
    near_duplicate_threshold: float = field(
        default=0.8, metadata={"help": "Keep rows at this Jaccard similarity or above in one split; 1 disables it."}
    )
    extra_metrics: list[str] | None = field(
        default=None, metadata={"help": "Metrics of `evaluate` for the report: folders, or names on the Hub (code!)."}
    )
    streaming: bool = field(default=False, metadata={"help": "Read only the first `max_*_samples` rows of a Hub set."})

    def __post_init__(self) -> None:
        check_language(self.language)
        try:
            re.compile(self.strip_pattern or "")
        except re.error as error:
            raise UserError(f"`strip_pattern` is no regular expression ({error}): mend or delete it.") from error
        if self.license and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", self.license):
            raise UserError(
                f"`license` is {self.license}: give an identifier of the Hub, such as apache-2.0, or other."
            )


def check_language(code: str | None) -> None:
    """Raise a UserError for what cannot be a code of ISO 639; the Hub takes no name of a language."""
    if code and not re.fullmatch("[a-z]{2,3}", code):
        raise UserError(f"`language` is {code}: give a code of ISO 639, such as en.")


EPILOG = "A flag changes its own key of the recipe alone. --no_KEY takes a key out, or makes a boolean false."


def parse_recipe(
    argument_types: tuple[type, ...], argv: list[str] | None = None, description: str | None = None
) -> tuple[Any, ...]:
    """Parse `[RECIPE.yaml] [--key value ...]` into one instance of each dataclass, plus the keys that were given.

    A flag changes its own key alone, and `--no_KEY` takes a key out of the recipe. A recipe whose other keys belong to
    what a flag replaces is refused. Other names of keys (`utils.keys`) are resolved, with a warning in the log.

    Args:
        argument_types: dataclasses, e.g. `(ModelConfig, DataArguments, QAArguments, SFTConfig)`. A field that has an
            effect only with another key has `needs` in its metadata: the key, and its values (None is any).
        argv: command line without the program name; defaults to `sys.argv[1:]`.
        description: text at the top of `--help`.

    Returns:
        the instances in the order of `argument_types`, then a dict of the keys set by recipe and flags with their
        parsed values. Written as YAML, the dict is a recipe that reproduces the run.

    Raises:
        UserError: wrong type, value outside the choices, unknown, refused or duplicate key, a key without effect, or
            keys that do not go together.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    hints = {name: hint for t in argument_types for name, hint in typing.get_type_hints(t).items()}
    parser = _Parser(argument_types, hints, description)
    notes: list[str] = []

    recipe = Path(argv.pop(0)) if argv and not argv[0].startswith("-") else None
    argv, given_flags, taken_out = _read_flags(argv, hints, notes)
    values, written = _read_recipe(recipe, hints, notes) if recipe else ({}, {})
    values = {key: value for key, value in values.items() if key not in taken_out}
    flags = []
    for key, value in values.items():
        flags += _as_flags(key, value, written[key], hints[key], f"in {recipe}")

    namespace, rest = parser.parse_known_args(flags + argv)
    if rest:
        raise UserError(f"`{rest[0]}` is not a flag: write `--key value`, with the recipe as the first argument.")
    given = {key: getattr(namespace, key) for key in (*values, *given_flags)}
    if found := keys.too_small(given, {f.name: f.default for t in argument_types for f in fields(t)}):
        raise UserError(found)
    with library_checks(str(recipe or "flags")):  # raised by a `__post_init__`
        arguments = parser.parse_args_into_dataclasses(flags + argv, look_for_args_file=False)
    if conflict := find_conflict(given, values, given_flags, str(recipe)):
        raise UserError(conflict)
    _check_effect(argument_types, arguments, given, notes)
    if os.environ.get("RANK", "0") == "0":  # one process of several; logging is set up later
        for note in notes:
            logger.warning(note)
    return (*arguments, given)


def _accept(key: str, value: Any, hints: dict[str, Any], where: str, notes: list[str]) -> tuple[str, Any] | None:
    """Return the key and the value that are meant, or None for a flag that says only what is done anyway. Adds to
    `notes` what differs from the given ones."""
    if reason := keys.why_refused(key, hints):
        raise UserError(f"`{key}` {where} {reason}")
    name, value = keys.resolve_alias(key, value, hints)
    if name != key:
        notes.append(f"`{key}` {where} is read as `{name}`")
    elif key in keys.FIXED:
        if reason := keys.why_fixed(key, yaml.safe_load(value) if isinstance(value, str) else value):
            raise UserError(f"`{key}` {where} {reason}")
        if key not in hints or len(keys.FIXED[key][0]) == 1:
            notes.append(f"`{key}` {where} changes nothing: {keys.FIXED[key][1]}")
            return None
    return name, value


def _read_flags(argv: list[str], hints: dict[str, Any], notes: list[str]) -> tuple[list[str], list[str], set[str]]:
    """Return the command line for argparse, the keys that it gives, and those that `--no_KEY` takes out of a recipe.
    `--no_KEY` of a boolean is `--KEY false`."""
    starts = [place for place, word in enumerate(argv) if word.startswith("--")]
    kept, given, taken_out = argv[: starts[0]] if starts else argv, list[str](), set[str]()
    for start, end in itertools.pairwise([*starts, len(argv)]):
        flag, joined, text = argv[start].partition("=")
        texts, key = [text] * bool(joined) + argv[start + 1 : end], flag[2:].replace("-", "_")
        if key == "help":
            kept = kept + argv[start:end]
            continue
        negated = key.startswith("no_") and key not in {*hints, *keys.REPLACED}
        key = key.removeprefix("no_") if negated else key
        value = texts if len(texts) > 1 else texts[0] if texts else not negated
        found = _accept(key, value, hints, "on the command line", notes)
        if found is None:
            continue
        name, value = found
        if name in (*given, *taken_out):
            raise UserError(f"`{name}` is given twice on the command line: give it once.")
        if negated and joined:
            raise UserError(
                f"`{flag}` has a value on the command line: write `{flag}` alone, or `--{key}` and a value."
            )
        if negated and bool not in (hints[name], *typing.get_args(hints[name])):
            taken_out.add(name)
            kept = kept + argv[start + 1 : end]
            continue
        given.append(name)
        if negated:
            kept = [*kept, f"--{name}=false", *argv[start + 1 : end]]
        elif name == key:
            kept = kept + argv[start:end]
        else:
            kept = [*kept, f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return kept, given, taken_out


def _check_effect(
    argument_types: tuple[type, ...], arguments: tuple[Any, ...], given: dict[str, Any], notes: list[str]
) -> None:
    """Refuse keys that need another one which is not given; note those for which it is switched off."""
    needs = keys.NEEDS | {
        f.name: f.metadata["needs"] for t in argument_types for f in fields(t) if "needs" in f.metadata
    }
    values = {name: value for instance in arguments for name, value in vars(instance).items()}
    for switch, without in keys.without_effect(given, values, needs).items():
        named, allowed = ", ".join(f"`{key}`" for key in without[:3]), needs[without[0]][1]
        wanted = f"`{switch}: {str(allowed[0]).lower()}`" if allowed else f"`{switch}`"
        if switch in given or all(f"is read as `{key}`" in " ".join(notes) for key in without):
            notes.append(f"{named}: no effect without {wanted}")
        else:
            raise UserError(f"{named}: no effect without {wanted}: set it, too, or delete {named}.")


def write_recipe(path: Path, given: dict[str, Any]) -> None:
    """Write the keys given to `parse_recipe` as a recipe that reproduces the run."""
    write_text(path, yaml.safe_dump(given, sort_keys=False, allow_unicode=True))


class _Parser(HfArgumentParser):
    """`HfArgumentParser` that raises `UserError`, and accepts several values for `str | list[str]` (`report_to`)."""

    def __init__(self, argument_types: tuple[type, ...], hints: dict[str, Any], description: str | None) -> None:
        self.several = {f"--{key}" for key, hint in hints.items() if {str, list[str]} <= set(typing.get_args(hint))}
        super().__init__(typing.cast(Any, argument_types), allow_abbrev=False, description=description, epilog=EPILOG)

    def add_argument(self, *names: str, **settings: Any) -> argparse.Action:
        settings.pop("needs", None)
        return super().add_argument(*names, **settings | ({"nargs": "+"} if names[0] in self.several else {}))

    def error(self, message: str) -> typing.NoReturn:
        raise UserError(re.sub(r"^argument --(\w+)\S*: ", r"`\1`: ", message))


class _UniqueKeyLoader(yaml.SafeLoader):
    """Rejects duplicate keys; PyYAML silently keeps the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen:
                line = key_node.start_mark.line + 1
                raise UserError(f"`{key}` is given twice in {self.name}, line {line}: keep one.")
            seen.add(key)
        return super().construct_mapping(node, deep)


def _read_recipe(path: Path, hints: dict[str, Any], notes: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values of a recipe by key, with other names resolved, and the same values as written."""
    found, where = {}, f"in {path}"
    values, written = _read_yaml(path)
    for key, value in values.items():
        accepted = _accept(str(key), value, hints, where, notes)
        if accepted and accepted[0] in found:
            raise UserError(f"`{accepted[0]}` {where} is given under two names, one of them `{key}`: keep one.")
        if accepted:
            text = keys.resolve_alias(str(key), written.get(key, value), hints)[1]
            found[accepted[0]] = (accepted[1], text)
    return {key: pair[0] for key, pair in found.items()}, {key: pair[1] for key, pair in found.items()}


def _read_yaml(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values of a recipe, and the same values as written, before YAML makes 8 of 010."""
    try:
        with path.open(encoding="utf-8") as stream:
            values = yaml.load(stream, _UniqueKeyLoader)
            stream.seek(0)
            written = yaml.load(stream, yaml.BaseLoader)
    except OSError as error:
        raise UserError(f"recipe `{path}` cannot be read ({error.strerror}): give the path to a YAML file.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"recipe `{path}` is not UTF-8 (byte {error.start}): save it as UTF-8.") from error
    except yaml.YAMLError as error:
        raise UserError(f"recipe `{path}` is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"recipe `{path}` contains {type(values).__name__}: write `key: value` lines.")
    return values, written


def _as_flags(key: str, value: Any, written: Any, hint: Any, where: str) -> list[str]:
    kinds = {hint, *typing.get_args(hint)}
    lists = [kind for kind in kinds if kind is list or typing.get_origin(kind) is list]
    if isinstance(value, list):
        if not lists:
            raise UserError(f"`{key}` {where} is a list of {len(value)}: give one value.")
        if not value:
            raise UserError(f"`{key}` {where} is an empty list: give a value or delete the line.")
        parts = {part for kind in lists for part in typing.get_args(kind)} or {str}
        for one, text in zip(value, written, strict=True):
            _check_scalar(key, one, str(text), parts, where)
        return [f"--{key}", *map(str, value)]
    _check_scalar(key, value, str(written), kinds, where)
    return [f"--{key}={json.dumps(value) if isinstance(value, dict) else value}"]


def _check_scalar(key: str, value: Any, written: str, kinds: set[Any], where: str) -> None:
    """Check that YAML did not read a value as something other than what is written."""
    if value is None:
        raise UserError(f"`{key}` {where} has no value: give one or delete the line.")
    if isinstance(value, bool):
        changed, reading = bool not in kinds, "yes, no, on and off as booleans"
    else:
        # YAML 1.1: 010 is octal, 1:30 counts in sixties, 1_5 is 15, 1.10 is 1.1. For a numeric key 1_000 is fine.
        changed = not isinstance(value, (str, list, dict)) and str(value) != written
        changed = changed and (not kinds & {int, float} or bool(re.match(r"[-+]?0[0-9_]|.*:", written)))
        reading = f"{written} as this value"
    if changed:
        raise UserError(f'`{key}` {where} is {value}, because YAML parses {reading}: put it in quotes: "{written}".')
