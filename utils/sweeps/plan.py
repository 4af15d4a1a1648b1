"""What a sweep runs: its configurations, checked against the script's arguments, and the command of each run."""

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

# The `eval_*` metrics of a run with `evaluate_test: false`. For other scripts the first finished run is checked.
LABELS = r"(macro|weighted)_(f1|precision|recall)|accuracy|matthews|loss|ece|brier"
SEVERAL = r"(micro|samples)_f1|micro_(precision|recall)|label_ranking_average_precision"  # several labels a text
EVAL_METRICS = {
    "run_qa_sft.py": "loss|perplexity",
    "run_summarization.py": "loss|perplexity",
    "run_classification.py": rf"{LABELS}|{SEVERAL}|(many|medium|few)_shot_macro_f1|top_\d+_accuracy",
    "run_hierarchical.py": rf"path_accuracy|inconsistent|hierarchical_\w+|\w+_({LABELS}|given_\w+_accuracy)",
}
OWN_KEYS = ("seed", "output_dir", "evaluate_test", "push_to_hub")  # set by the sweep
LONGEST_NAME = 80  # characters; file systems allow 255 in a folder name


class Run(NamedTuple):
    """One run: configuration name, changed values, seed, output folder and command."""

    configuration: str
    values: dict[str, Any]
    seed: int
    folder: Path
    command: list[str]


def load_arguments(script: str) -> tuple[type, ...]:
    """Return the argument dataclasses of a script, its `ARGUMENTS`. Its `main` does not run."""
    if not Path(script).is_file():
        raise UserError(f"`script` {script} does not exist: give one of run_*.py.")
    names = runpy.run_path(script, run_name="sweep_script")
    if "ARGUMENTS" not in names:
        raise UserError(f"`script` {script} has no `ARGUMENTS`: give one of run_*.py.")
    return names["ARGUMENTS"]


def processes_of(config_file: str | None) -> int:
    """Return the number of processes per run, from the config file of `accelerate launch`."""
    if config_file is None:
        return 1
    try:
        return int(yaml.safe_load(Path(config_file).read_text(encoding="utf-8"))["num_processes"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"`config_file` {config_file} is not an accelerate config: give a file like those in recipes/accelerate/."
        ) from error


def check_metric(script: str, metric: str) -> None:
    """Refuse a metric that the script is known not to write."""
    known = EVAL_METRICS.get(Path(script).name)
    name = metric.removeprefix("eval_")
    if name == metric or name.endswith("_ci95") or (known and not re.fullmatch(known, name)):
        shown = f"; {Path(script).name} writes eval_({known})" if known else ""
        raise UserError(f"`metric` is {metric}: give a validation metric, `eval_...`{shown}.")


def name_configurations(configurations: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Check the names and keys of `configurations`. A name without values stands for the unchanged recipe."""
    if not configurations:
        raise UserError("`configurations` is empty: add at least one name with its values.")
    for name, values in configurations.items():
        if not re.fullmatch(r"\w[\w.=+,-]*", str(name)):
            raise UserError(f"configuration `{name}`: use only letters, digits and _ . = + , - in a name.")
        if not isinstance(values or {}, dict):
            raise UserError(f"configuration `{name}` is {type(values).__name__}: write `key: value` lines.")
    named = {str(name): values or {} for name, values in configurations.items()}  # YAML reads 1 as a number
    for name, values in named.items():
        _check_keys(f"configuration `{name}`", values, "split_seed")
    return named


def expand_grid(grid: dict[str, Any], n_seeds: int, most: int) -> dict[str, dict[str, Any]]:
    """Return all combinations, named `key=value,key=value`; the last key changes fastest.

    Args:
        grid: key -> list of values, each a scalar or a list.
        n_seeds: number of runs per combination.
        most: maximum number of runs.
    """
    _check_keys("`grid`", grid, "split_seed")
    if not grid:
        raise UserError("`grid` is empty: add at least one key with its values.")
    size = 1
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise UserError(
                f"`grid`, key `{key}` is {json.dumps(values, default=str)}: write a list, `{key}: [1, 2]`."
            )
        size *= len(values)
    check_size(size * n_seeds, most)
    combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    names = [",".join(f"{key}={_as_name(value)}" for key, value in values.items()) for values in combinations]
    if max(map(len, names)) > LONGEST_NAME or len(set(names)) < len(names):
        names = [f"configuration-{number:0{len(str(size))}}" for number in range(1, size + 1)]
    return dict(zip(names, combinations, strict=True))


def grid_ranges(configurations: dict[str, dict[str, Any]], keys: list[str]) -> dict[str, dict[str, Any]]:
    """Return `low`, `high` and `log` of each grid key with at least two numeric values."""
    ranges = {}
    for key in keys:
        values = [values[key] for values in configurations.values()]
        if all(is_number(value) for value in values) and len(set(values)) > 1:
            ranges[key] = {"low": min(values), "high": max(values), "log": min(values) > 0}
    return ranges


def check_size(runs: int, most: int) -> None:
    """Refuse a sweep with more than `most` runs."""
    if runs > most:
        raise UserError(
            f"the sweep has {runs:,} runs and `most_runs` is {most:,}: try fewer values, or raise `most_runs`."
        )


def resolve(arguments: tuple[type, ...], recipe: str, values: dict[str, Any], where: str) -> dict[str, Any]:
    """Parse `values` on top of a recipe, as the script does, and return all keys that are set.

    Parsing sets `use_cpu`, so that a sweep for a GPU can be checked on any machine and this process uses no GPU
    memory.

    Raises:
        UserError: from `parse_recipe`, prefixed with `where`.
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
    """Convert keys and values to `--key value` flags."""
    flags = []
    for key, value in values.items():
        listed = value if isinstance(value, list) else [value]
        flags += [f"--{key}", *(json.dumps(v) if isinstance(v, bool | dict) else str(v) for v in listed)]
    return flags


def resolve_all(
    arguments: tuple[type, ...], recipe: str, overrides: dict[str, Any], configurations: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return the values of each configuration as the script parses them (`"1e-4"` becomes a number).

    Raises:
        UserError: the script refuses a key or value, or two configurations are identical.
    """
    resolved = {}
    seen: dict[str, dict[str, Any]] = {}
    for name, values in configurations.items():
        given = resolve(arguments, recipe, overrides | values, f"configuration `{name}`")
        for other, its in seen.items():
            if its == given:
                raise UserError(f"configurations `{other}` and `{name}` are identical: delete one.")
        seen[name] = given
        resolved[name] = {key: given[key] for key in values}
    return resolved


def make_run(
    launch: list[str], script: str, recipe: str, output_dir: Path, name: str, values: dict[str, Any], seed: int
) -> Run:
    """Return the run of one configuration and seed. The run stops after validation.

    Args:
        launch: the command in front of the script, `accelerate launch ...`.
        recipe: recipe that `values` change.
        output_dir: folder of the sweep.
    """
    folder = output_dir / "runs" / f"{name}-seed{seed}"
    own = {"seed": seed, "evaluate_test": False, "output_dir": folder}
    return Run(name, values, seed, folder, [*launch, script, recipe, *as_flags(values | own)])


@contextlib.contextmanager
def hold_folder(output_dir: Path) -> Iterator[None]:
    """Lock the folder against other sweeps. The operating system releases the lock when this process ends."""
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        lock = (output_dir / ".lock").open("w")
    except OSError as error:
        raise UserError(
            f"`output_dir` {output_dir} cannot be written ({error.strerror}): choose another folder."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"`output_dir` {output_dir} is in use by another sweep: wait, or choose another folder."
            ) from error
        yield


def keep_plan(path: Path, plan: dict[str, Any]) -> None:
    """Save the plan of a sweep, or check that the folder holds the same plan."""
    plan = json.loads(json.dumps(plan))
    stored = read_json(path)
    changed = [key for key in plan if key not in stored or stored[key] != plan[key]]
    if stored and changed:
        raise UserError(
            f"`output_dir` {path.parent} holds another sweep (`{changed[0]}` differs): delete it, or choose another."
        )
    write_json(path, plan)


def _check_keys(where: str, values: dict[str, Any], *more: str) -> None:
    """Refuse keys that the sweep sets itself."""
    if taken := [key for key in (*OWN_KEYS, *more) if key in values]:
        raise UserError(f"{where} has `{taken[0]}`, which the sweep sets itself: delete it.")


def _as_name(value: Any) -> str:
    """Return a value as part of a folder name."""
    if isinstance(value, list):
        return "+".join(map(_as_name, value))
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^\w.+-]", "_", text)
