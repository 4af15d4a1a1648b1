"""What a sweep runs: configurations, checked by the script's own arguments, and the command of each run."""

import contextlib
import fcntl
import itertools
import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from utils.arguments import UserError, parse_recipe
from utils.json_files import read_json, write_json
from utils.reporting.metric_names import is_number

# What `evaluate_test: false` writes as `eval_*`. A script that is not here is checked when its first run has ended.
LABELS = r"(macro|weighted)_(f1|precision|recall)|accuracy|matthews|loss|ece|brier"
EVAL_METRICS = {
    "run_qa_sft.py": "loss|perplexity",
    "run_summarization.py": "loss|perplexity",
    "run_classification.py": rf"{LABELS}|(many|medium|few)_shot_macro_f1|top_\d+_accuracy",
    "run_hierarchical.py": rf"path_accuracy|inconsistent|hierarchical_\w+|\w+_({LABELS}|given_\w+_accuracy)",
}
OWN_KEYS = ("seed", "output_dir", "evaluate_test", "push_to_hub")  # the sweep's own business
LONGEST_NAME = 80  # characters of a name made of values; names of folders end at 255


class Run(NamedTuple):
    """One run: its configuration's name and values, its seed, its folder and its command."""

    configuration: str
    values: dict[str, Any]
    seed: int
    folder: Path
    command: list[str]


def load_arguments(script: str) -> tuple[type, ...]:
    """The dataclasses of a script's keys: its `ARGUMENTS`. The script is read as a module, so nothing of it runs."""
    if not Path(script).is_file():
        raise UserError(f"`script` {script} is no file: give one of the run_*.py.")
    names = runpy.run_path(script, run_name="sweep_script")
    if "ARGUMENTS" not in names:
        raise UserError(f"`script` {script} has no `ARGUMENTS`: give one of the run_*.py.")
    return names["ARGUMENTS"]


def processes_of(config_file: str | None) -> int:
    """How many processes `accelerate launch` starts for one run, from its `config_file`."""
    if config_file is None:
        return 1
    try:
        return int(yaml.safe_load(Path(config_file).read_text(encoding="utf-8"))["num_processes"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"`config_file` {config_file} is no configuration of accelerate: give one as recipes/accelerate/ has them."
        ) from error


def check_metric(script: str, metric: str) -> None:
    """Refuse a metric that the runs cannot write, where that is known before."""
    known = EVAL_METRICS.get(Path(script).name)
    name = metric.removeprefix("eval_")
    if name == metric or name.endswith("_ci95") or (known and not re.fullmatch(known, name)):
        shown = f"; {Path(script).name} writes eval_({known})" if known else ""
        raise UserError(f"`metric` is {metric}: give a number of validation, `eval_...`{shown}.")


def name_configurations(configurations: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Check the names and keys of `configurations`; one without values is the recipe as it stands."""
    if not configurations:
        raise UserError("`configurations` is empty: give at least one name with its values.")
    for name, values in configurations.items():
        if not re.fullmatch(r"\w[\w.=+,-]*", name):
            raise UserError(f"configuration `{name}`: a name is letters, digits and any of _ . = + , -")
        if not isinstance(values or {}, dict):
            raise UserError(f"configuration `{name}` is {type(values).__name__}: write `key: value` lines.")
    named = {name: values or {} for name, values in configurations.items()}
    for name, values in named.items():
        _check_keys(f"configuration `{name}`", values, "split_seed")
    return named


def expand_grid(grid: dict[str, Any], n_seeds: int, most: int) -> dict[str, dict[str, Any]]:
    """Every combination of the values of each key, named `key=value,key=value`, the last key changing fastest.

    Args:
        grid: key -> list of values, each a scalar or a list.
        n_seeds: runs of each combination.
        most: as many runs are allowed.
    """
    _check_keys("`grid`", grid, "split_seed")
    if not grid:
        raise UserError("`grid` is empty: give at least one key with its values.")
    size = 1
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise UserError(f"`grid`, key `{key}`, has no list of values: write `{key}: [1, 2]`.")
        size *= len(values)
    check_size(size * n_seeds, most)
    combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    names = [",".join(f"{key}={_as_name(value)}" for key, value in values.items()) for values in combinations]
    if max(map(len, names)) > LONGEST_NAME or len(set(names)) < len(names):
        names = [f"configuration-{number:0{len(str(size))}}" for number in range(1, size + 1)]
    return dict(zip(names, combinations, strict=True))


def grid_ranges(configurations: dict[str, dict[str, Any]], keys: list[str]) -> dict[str, dict[str, Any]]:
    """`low`, `high` and `log` of each key of a grid that has several numbers."""
    ranges = {}
    for key in keys:
        values = [values[key] for values in configurations.values()]
        if all(is_number(value) for value in values) and len(set(values)) > 1:
            ranges[key] = {"low": min(values), "high": max(values), "log": min(values) > 0}
    return ranges


def check_size(runs: int, most: int) -> None:
    """Refuse more runs than were asked for."""
    if runs > most:
        raise UserError(f"these are {runs:,} runs and `most_runs` is {most:,}: try fewer values, or raise it.")


def resolve(arguments: tuple[type, ...], recipe: str, values: dict[str, Any], where: str) -> dict[str, Any]:
    """Parse `values` on top of a recipe as the script itself would, and return every key that is given.

    It is parsed for the CPU, where any precision is allowed: a sweep for a GPU can be checked on a machine without
    one, and this process holds no memory of a GPU.

    Raises:
        UserError: as `parse_recipe`, with `where` in front.
    """
    for key, value in values.items():
        if value is None or value == []:
            raise UserError(f"{where}: `{key}` has no value: give one or delete the line.")
    try:
        *_, given = parse_recipe(arguments, [recipe, *as_flags(values | {"use_cpu": True})])
    except UserError as error:
        raise UserError(f"{where}: {str(error).replace(' on the command line', '')}") from error
    own = yaml.safe_load(Path(recipe).read_text(encoding="utf-8")) | values
    given.pop("use_cpu")
    return given | {key: own[key] for key in ("use_cpu",) if key in own}


def as_flags(values: dict[str, Any]) -> list[str]:
    """Turn keys and values into `--key value` flags."""
    flags = []
    for key, value in values.items():
        listed = value if isinstance(value, list) else [value]
        flags += [f"--{key}", *(json.dumps(v) if isinstance(v, bool | dict) else str(v) for v in listed)]
    return flags


def resolve_all(
    arguments: tuple[type, ...], recipe: str, overrides: dict[str, Any], configurations: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The values of each configuration as the script reads them (`"1e-4"` is a number), all of them checked.

    Raises:
        UserError: for a key or value that the script does not take, and for two configurations that are the same.
    """
    resolved, seen = {}, {}
    for name, values in configurations.items():
        given = resolve(arguments, recipe, overrides | values, f"configuration `{name}`")
        for other, its in seen.items():
            if its == given:
                raise UserError(f"configurations `{other}` and `{name}` are the same: delete one.")
        seen[name] = given
        resolved[name] = {key: given[key] for key in values}
    return resolved


def make_run(
    launch: list[str], script: str, recipe: str, output_dir: Path, name: str, values: dict[str, Any], seed: int
) -> Run:
    """The run of a configuration with a seed, which ends on validation.

    Args:
        launch: the command up to the script, `accelerate launch`.
        recipe: what `values` come on top of.
        output_dir: the sweep's folder.
    """
    folder = output_dir / "runs" / f"{name}-seed{seed}"
    own = {"seed": seed, "evaluate_test": False, "output_dir": folder}
    return Run(name, values, seed, folder, [*launch, script, recipe, *as_flags(values | own)])


@contextlib.contextmanager
def hold_folder(output_dir: Path) -> Iterator[None]:
    """Keep every other sweep out of a folder until this process ends, however it ends."""
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        lock = (output_dir / ".lock").open("w")
    except OSError as error:
        raise UserError(f"`output_dir` {output_dir} cannot be written ({error.strerror}): choose another.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"`output_dir` {output_dir} is in use by another sweep: wait, or choose another."
            ) from error
        yield


def keep_plan(path: Path, plan: dict[str, Any]) -> None:
    """Write down what a sweep is, or check that the folder's sweep is this one."""
    plan = json.loads(json.dumps(plan))
    stored = read_json(path)
    changed = [key for key in plan if key not in stored or stored[key] != plan[key]]
    if stored and changed:
        raise UserError(
            f"`output_dir` {path.parent} holds another sweep (`{changed[0]}` differs): choose another, or delete it."
        )
    write_json(path, plan)


def _check_keys(where: str, values: dict[str, Any], *more: str) -> None:
    """Refuse the keys that the sweep gives itself."""
    if taken := [key for key in (*OWN_KEYS, *more) if key in values]:
        raise UserError(f"{where} has `{taken[0]}`, which the sweep itself gives: delete it.")


def _as_name(value: Any) -> str:
    """A value as a part of a folder's name."""
    if isinstance(value, list):
        return "+".join(map(_as_name, value))
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^\w.+-]", "_", text)
