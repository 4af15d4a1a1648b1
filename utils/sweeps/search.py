"""Hyperparameter search with Optuna: TPE sampler (Bergstra et al. 2011) and median pruner.

The rows of the runs are the only state. The sampler sees the rows of the earlier trials and is seeded with the trial
number, so a restarted search proposes the same values. Parallel trials see the rows from before their batch.
"""

import json
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from utils.arguments import UserError, library_checks

DRAWS = 100  # attempts per trial before the search space counts as exhausted
STATES = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}

optuna.logging.set_verbosity(optuna.logging.WARNING)


def read_space(search: dict[str, Any]) -> dict[str, BaseDistribution]:
    """Convert `key: {low, high, log, step}` and `key: {choices}` to distributions. Integer bounds give integers.

    Raises:
        UserError: the search is empty, or a key has unknown settings or an invalid range.
    """
    if not search:
        raise UserError("`search` is empty: add at least one key with low and high, or with choices.")
    space: dict[str, BaseDistribution] = {}
    for key, given in search.items():
        where = f"`search`, key `{key}`"
        words = set(given) if isinstance(given, dict) else set()
        if words == {"choices"} and isinstance(given["choices"], list) and given["choices"]:
            # as JSON, because Optuna accepts no lists
            space[key] = CategoricalDistribution([json.dumps(choice) for choice in given["choices"]])
            continue
        if not {"low", "high"} <= words <= {"low", "high", "log", "step"}:
            raise UserError(
                f"{where} is {json.dumps(given, default=str)}: give low and high (and log or step), or choices."
            )
        try:
            low, high = (value if isinstance(value, int) else float(value) for value in (given["low"], given["high"]))
        except (TypeError, ValueError) as error:
            raise UserError(f"{where} is {json.dumps(given, default=str)}: low and high must be numbers.") from error
        log = bool(given.get("log"))
        with library_checks(where):
            if isinstance(low, int) and isinstance(high, int):
                space[key] = IntDistribution(low, high, log, given.get("step", 1))
            else:
                space[key] = FloatDistribution(low, high, log, given.get("step"))
    return space


def corners(space: dict[str, BaseDistribution]) -> list[dict[str, Any]]:
    """Return configurations that together contain both ends of every range and every choice."""
    ends = {key: [found["low"], found["high"]] for key, found in ranges_of(space).items()}
    for key, found in space.items():
        if isinstance(found, CategoricalDistribution):
            ends[key] = [json.loads(str(choice)) for choice in found.choices]
    most = max(len(values) for values in ends.values())
    return [{key: ends[key][i % len(ends[key])] for key in space} for i in range(most)]


def ranges_of(space: dict[str, BaseDistribution]) -> dict[str, dict[str, Any]]:
    """Return `low`, `high` and `log` of each key with a range."""
    return {
        key: {"low": found.low, "high": found.high, "log": found.log}
        for key, found in space.items()
        if isinstance(found, IntDistribution | FloatDistribution)
    }


def propose(
    space: dict[str, BaseDistribution],
    earlier: list[dict[str, Any]],
    tried: list[dict[str, Any]],
    number: int,
    seed: int,
    metric: str,
    maximize: bool,
) -> dict[str, Any] | None:
    """Return the values of a trial, or None if the sampler finds no untried values.

    Args:
        earlier: rows of the trials that the sampler sees.
        tried: values of all earlier trials and of the trials in the same batch.
        number: trial number, from 0.
        seed: seed of the search.
    """
    for draw in range(DRAWS):
        study = _study(space, earlier, metric, maximize, [seed, number, draw])
        params = study.ask(space).params
        values = {key: json.loads(params[key]) if hasattr(space[key], "choices") else params[key] for key in space}
        if values not in tried:
            return values
    return None


def bad_step(
    space: dict[str, BaseDistribution],
    earlier: list[dict[str, Any]],
    values: dict[str, Any],
    history: dict[int, float],
    metric: str,
    maximize: bool,
) -> int | None:
    """Return the first step at which the best value so far is worse than the median of the earlier trials, or None.

    Optuna's MedianPruner decides, which prunes only after five finished trials. It sees the steps in order, so the
    result does not depend on when this function is called.
    """
    study = _study(space, earlier, metric, maximize, [0])
    study.enqueue_trial(_params(space, values))
    trial = study.ask(space)
    for step, value in sorted(history.items()):
        trial.report(value, step)
        if trial.should_prune():
            return step
    return None


def best_trials(rows: list[dict[str, Any]], metric: str, maximize: bool, most: int) -> list[dict[str, Any]]:
    """Return the rows of the best finished trials, best first."""
    finished = [row for row in rows if row["status"] == "finished"]
    return sorted(finished, key=lambda row: row["evals"][metric], reverse=maximize)[:most]


def _study(
    space: dict[str, BaseDistribution], rows: list[dict[str, Any]], metric: str, maximize: bool, entropy: list[int]
) -> optuna.Study:
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    study = optuna.create_study(
        direction="maximize" if maximize else "minimize",
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.MedianPruner(),
    )
    study.add_trials([_frozen(space, row, metric) for row in rows])
    return study


def _frozen(space: dict[str, BaseDistribution], row: dict[str, Any], metric: str) -> FrozenTrial:
    return optuna.trial.create_trial(
        state=STATES[row["status"]],
        value=row["evals"].get(metric),
        params=_params(space, row["values"]),
        distributions=space,
        intermediate_values={int(step): value for step, value in row["history"].items()},
    )


def _params(space: dict[str, BaseDistribution], values: dict[str, Any]) -> dict[str, Any]:
    return {key: json.dumps(values[key]) if hasattr(space[key], "choices") else values[key] for key in space}
