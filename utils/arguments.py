"""Parse recipes and command-line flags into dataclasses, once and strictly.

Each recipe key becomes a flag (`learning_rate: 2e-4` -> `--learning_rate 2e-4`). transformers' `HfArgumentParser` then
parses these flags followed by the command line, so the last value wins and one parser validates both. Its own
`parse_yaml_file` leaves `2e-4` a string and accepts any value for a field with choices.
"""

import argparse
import contextlib
import difflib
import json
import re
import sys
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser

from utils.conflicts import find_conflict


class UserError(ValueError):
    """A mistake that the user can correct. The message is one line: the key, file, row or column in backticks, the
    value found, the values allowed, and what to do."""


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Print a `UserError` as one line `error: ...` on stderr and exit with code 2. Any other exception is a defect and
    keeps its traceback."""
    try:
        yield
    except UserError as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr, flush=True)
        sys.exit(2)


@contextlib.contextmanager
def library_checks(where: str) -> Iterator[None]:
    """Convert a library's argument checks into a `UserError`. Wrap constructors only, where a `ValueError` can only
    concern the arguments."""
    try:
        yield
    except (ValueError, TypeError, NotImplementedError, ImportError) as error:
        raise UserError(f"{where}: {error}") from error


LONG_TEXTS = ("head", "head_tail", "chunks")  # ways to read a text longer than the model's maximum


@dataclass
class DataArguments:
    """Where the rows come from and how they are cleaned and split, for all four scripts."""

    dataset_name: str | None = field(default=None, metadata={"help": "Hub data set; alternative to `train_file`."})
    dataset_config_name: str | None = field(default=None, metadata={"help": "Configuration of the Hub data set."})
    dataset_revision: str | None = field(default=None, metadata={"help": "Commit, tag or branch of the Hub data set."})
    train_split_name: str = field(default="train", metadata={"help": "Hub split for training."})
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
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on a random sample of this size."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Validate on a random sample of this size."})
    max_predict_samples: int | None = field(default=None, metadata={"help": "Test on a random sample of this size."})
    min_input_words: int = field(default=2, metadata={"help": "Drop rows whose input has fewer words."})
    min_target_words: int = field(default=1, metadata={"help": "Drop rows whose target has fewer words."})
    drop_ambiguous: bool = field(default=True, metadata={"help": "Drop inputs of English stop words: Why is it?"})
    lowercase: bool = field(default=False, metadata={"help": "Lowercase all text; mg and Mg become the same."})
    near_duplicate_threshold: float = field(
        default=0.8, metadata={"help": "Keep rows at this Jaccard similarity or above in one split; 1 disables it."}
    )
    streaming: bool = field(default=False, metadata={"help": "Read only the first `max_*_samples` rows of a Hub set."})


# Keys of earlier versions and other tools -> what to write. Checked before the closest known key is suggested.
REPLACED = {
    "config": "give the recipe as the first argument, without a flag",
    "warmup_ratio": "write `warmup_steps`, where a value below 1 is a ratio",
    "group_by_length": "write `train_sampling_strategy: group_by_length`",
    "length_column_name": "delete it, it has no effect",
    "overwrite_output_dir": "delete it; a run resumes by itself, and a new `output_dir` starts from scratch",
    "logging_dir": "set the environment variable TENSORBOARD_LOGGING_DIR",
    "evaluation_strategy": "write `eval_strategy`",
    "torch_dtype": "write `dtype`",
    "max_seq_length": "write `max_length`",
    "no_cuda": "write `use_cpu`",
    "save_safetensors": "delete it, it is always on",
    "half_precision_backend": "write `bf16` or `fp16`",
    "bnb_4bit_compute_dtype": "write `dtype`",
    "bnb_4bit_use_double_quant": "write `use_bnb_nested_quant`",
    "target_modules": "write `lora_target_modules`",
    "modules_to_save": "write `lora_modules_to_save`",
    "base_model": "write `model_name_or_path`",
    "micro_batch_size": "write `per_device_train_batch_size`",
    "num_epochs": "write `num_train_epochs`",
    "blend": "write `ensemble`",
    "max_windows": "write `max_chunks`",
    "lr_scheduler": "write `lr_scheduler_type`",
    "do_train": "delete it; a run always trains and evaluates, and `num_train_epochs: 0` only evaluates",
    "do_eval": "delete it, a run always evaluates",
    "do_predict": "delete it, a run always evaluates on the test split",
    "resume_from_checkpoint": "delete it; the same command resumes from the newest complete checkpoint",
    "push_to_hub_model_id": "write `hub_model_id`",
    "push_to_hub_token": "set the environment variable HF_TOKEN; a token does not belong in a recipe",
    "hub_token": "set the environment variable HF_TOKEN; a token does not belong in a recipe",
}


EPILOG = "A flag changes its own key of the recipe alone. --no_KEY takes a key out, or makes a boolean false."

# Library fields that are rejected anyway
REFUSED = {"do_train", "do_eval", "do_predict", "length_column_name", "resume_from_checkpoint", "hub_token"}


def parse_recipe(
    argument_types: tuple[type, ...], argv: list[str] | None = None, description: str | None = None
) -> tuple[Any, ...]:
    """Parse `[RECIPE.yaml] [--key value ...]` into one instance of each dataclass, plus the keys that were given.

    A flag changes its own key alone, and `--no_KEY` takes a key out of the recipe. A recipe whose other keys belong to
    what a flag replaces is refused.

    Args:
        argument_types: dataclasses, e.g. `(ModelConfig, DataArguments, QAArguments, SFTConfig)`.
        argv: command line without the program name; defaults to `sys.argv[1:]`.
        description: text at the top of `--help`.

    Returns:
        the instances in the order of `argument_types`, then a dict of the keys set by recipe and flags with their
        parsed values. Written as YAML, the dict is a recipe that reproduces the run.

    Raises:
        UserError: wrong type, value outside the choices, unknown or removed key, duplicate key, or keys that do not go
            together.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    hints = {name: hint for t in argument_types for name, hint in typing.get_type_hints(t).items()}
    parser = _Parser(argument_types, hints, description)

    recipe = Path(argv.pop(0)) if argv and not argv[0].startswith("-") else None
    argv, given_flags, taken_out = _read_flags(argv, hints)
    values, written = _read_yaml(recipe) if recipe else ({}, {})
    for key in values:
        _check_key(key, hints, f"in {recipe}")
    values = {key: value for key, value in values.items() if key not in taken_out}
    flags = []
    for key, value in values.items():
        flags += _as_flags(key, value, written.get(key, value), hints[key], f"in {recipe}")

    namespace, rest = parser.parse_known_args(flags + argv)
    if rest:
        raise UserError(f"`{rest[0]}` is not a flag: write `--key value`, with the recipe as the first argument.")
    with library_checks(str(recipe or "flags")):  # raised by a `__post_init__`
        arguments = parser.parse_args_into_dataclasses(flags + argv, look_for_args_file=False)
    given = {key: getattr(namespace, key) for key in (*values, *given_flags)}
    if conflict := find_conflict(given, values, given_flags, str(recipe)):
        raise UserError(conflict)
    return (*arguments, given)


def write_recipe(path: Path, given: dict[str, Any]) -> None:
    """Write the keys given to `parse_recipe` as a recipe that reproduces the run."""
    path.write_text(yaml.safe_dump(given, sort_keys=False, allow_unicode=True), encoding="utf-8")


class _Parser(HfArgumentParser):
    """`HfArgumentParser` that raises `UserError`, and accepts several values for `str | list[str]` (`report_to`)."""

    def __init__(self, argument_types: tuple[type, ...], hints: dict[str, Any], description: str | None) -> None:
        self.several = {f"--{key}" for key, hint in hints.items() if {str, list[str]} <= set(typing.get_args(hint))}
        super().__init__(typing.cast(Any, argument_types), allow_abbrev=False, description=description, epilog=EPILOG)

    def add_argument(self, *names: str, **settings: Any) -> argparse.Action:
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


def _read_flags(argv: list[str], hints: dict[str, Any]) -> tuple[list[str], list[str], set[str]]:
    """Return the command line for argparse, the keys that it gives, and those that `--no_KEY` takes out of a recipe.
    `--no_KEY` of a boolean is `--KEY false`."""
    kept: list[str] = []
    given: list[str] = []
    taken_out: set[str] = set()
    for arg in argv:
        name, _, value = arg.partition("=")
        key = name[2:].replace("-", "_")
        if not arg.startswith("--") or key == "help":
            kept.append(arg)
            continue
        negated = key.startswith("no_") and key not in {*hints, *REPLACED}
        key = key[3:] if negated else key
        _check_key(key, hints, "on the command line")
        if key in (*given, *taken_out):
            raise UserError(f"`{key}` is given twice on the command line: give it once.")
        if negated and value:
            raise UserError(
                f"`{name}` has a value on the command line: write `{name}` alone, or `--{key}` and a value."
            )
        if negated and bool not in (hints[key], *typing.get_args(hints[key])):
            taken_out.add(key)
        else:
            given.append(key)
            kept.append(f"--{key}=false" if negated else arg)
    return kept, given, taken_out


def _check_key(key: Any, hints: dict[str, Any], where: str) -> None:
    if key in REPLACED and (key not in hints or key in REFUSED):
        raise UserError(f"`{key}` {where} is not supported: {REPLACED[key]}.")
    if key not in hints:
        near = difflib.get_close_matches(str(key), hints, n=1, cutoff=0.6)
        advice = f"did you mean `{near[0]}`?" if near else "run with --help for the list of keys."
        raise UserError(f"`{key}` {where} is not a known key: {advice}")


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
