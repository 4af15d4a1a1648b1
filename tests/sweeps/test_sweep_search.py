"""The search: a restart proposes the same, nothing is tried twice, and pruning does not hang on the clock."""

import numpy as np
import pytest

from utils.arguments import UserError
from utils.sweeps.search import bad_step, best_trials, corners, propose, ranges_of, read_space

SPACE = read_space(
    {
        "learning_rate": {"low": "1e-5", "high": 1e-2, "log": True},  # YAML reads 1e-5 as text
        "lora_r": {"low": 4, "high": 16, "step": 4},
        "lora_target_modules": {"choices": [["q", "v"], "all-linear"]},
    }
)


def row(values: dict, score: float | None, history: dict | None = None, status: str = "finished") -> dict:
    evals = {} if score is None else {"eval_loss": score}
    return {"configuration": str(values), "values": values, "evals": evals, "status": status,
            "history": {str(step): value for step, value in (history or {}).items()}}  # fmt: skip


def search(n: int, seed: int, score) -> list[dict]:
    rows = []
    for number in range(n):
        values = propose(SPACE, rows, [r["values"] for r in rows], number, seed, "eval_loss", False)
        rows.append(row(values, score(values)))
    return rows


def loss(values: dict) -> float:
    return abs(np.log10(values["learning_rate"]) + 3) + values["lora_r"] / 100


def test_a_search_that_is_started_again_proposes_the_same_and_another_seed_something_else():
    rows = search(14, 1, loss)
    again = propose(SPACE, rows[:12], [r["values"] for r in rows[:12]], 12, 1, "eval_loss", False)
    assert again == rows[12]["values"]
    assert search(4, 2, loss)[0]["values"] != rows[0]["values"]
    keys = {str(r["values"]) for r in rows}
    assert len(keys) == 14


def test_proposals_stay_in_their_ranges_and_learn_from_the_rows():
    rows = search(40, 3, loss)
    for values in (r["values"] for r in rows):
        assert 1e-5 <= values["learning_rate"] <= 1e-2 and values["lora_r"] in (4, 8, 12, 16)
        assert values["lora_target_modules"] in (["q", "v"], "all-linear")
    errors = [abs(np.log10(r["values"]["learning_rate"]) + 3) for r in rows]
    assert np.mean(errors[20:]) < 0.6 * np.mean(errors[:10])  # the first ten are random
    best = best_trials(rows, "eval_loss", False, 3)
    assert [r["evals"]["eval_loss"] for r in best] == sorted(r["evals"]["eval_loss"] for r in rows)[:3]


def test_a_space_that_is_used_up_ends_the_search():
    space = read_space({"lora_r": {"choices": [4, 8]}})
    rows = [row({"lora_r": 4}, 1.0), row({"lora_r": 8}, None, status="failed")]
    assert propose(space, rows, [r["values"] for r in rows], 2, 1, "eval_loss", False) is None
    assert propose(space, rows[:1], [rows[0]["values"]], 1, 1, "eval_loss", False) == {"lora_r": 8}


def test_a_trial_ends_at_the_first_step_at_which_its_best_is_worse_than_the_median():
    values = {"learning_rate": 1e-3, "lora_r": 8, "lora_target_modules": "all-linear"}
    earlier = [row(values | {"learning_rate": 1e-4 * i}, 1.0 + i, {10: 2.0 + i, 20: 1.0 + i}) for i in range(1, 6)]
    assert bad_step(SPACE, earlier, values, {10: 4.5, 20: 9.0, 30: 9.0}, "eval_loss", False) == 20
    assert bad_step(SPACE, earlier, values, {10: 9.0}, "eval_loss", False) == 10
    assert bad_step(SPACE, earlier, values, {10: 4.0, 20: 3.0}, "eval_loss", False) is None
    for seen in ({10: 9.0}, {10: 9.0, 20: 0.0}, {10: 9.0, 20: 0.0, 30: 0.0}):  # whenever it is asked
        assert bad_step(SPACE, earlier, values, seen, "eval_loss", False) == 10
    assert bad_step(SPACE, earlier, values, {10: 0.0, 20: 0.5}, "eval_loss", True) == 10  # where more is better
    assert bad_step(SPACE, earlier[:4], values, {10: 99.0}, "eval_loss", False) is None  # of fewer than five: none
    assert bad_step(SPACE, earlier, values, {}, "eval_loss", False) is None


def test_every_end_and_choice_is_checked_before_the_first_run():
    values = corners(SPACE)
    assert {v["learning_rate"] for v in values} == {1e-5, 1e-2} and {v["lora_r"] for v in values} == {4, 16}
    assert [v["lora_target_modules"] for v in values] == [["q", "v"], "all-linear"]
    assert ranges_of(SPACE).keys() == {"learning_rate", "lora_r"}
    assert ranges_of(SPACE)["learning_rate"] == {"low": 1e-5, "high": 1e-2, "log": True}


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({}, "`search` is empty"),
        ({"lora_r": [4, 8]}, "`search`, key `lora_r`"),
        ({"lora_r": {"low": 4}}, "`search`, key `lora_r`"),
        ({"lora_r": {"low": 4, "high": 8, "maximum": 9}}, "`search`, key `lora_r`"),
        ({"lora_r": {"choices": []}}, "`search`, key `lora_r`"),
        ({"lora_r": {"low": "four", "high": 8}}, "`search`, key `lora_r`.* must be numbers"),
        ({"lora_r": {"low": 8, "high": 4}}, "`search`, key `lora_r`"),
        ({"learning_rate": {"low": 0.0, "high": 1.0, "log": True}}, "`search`, key `learning_rate`"),
    ],
)
def test_a_range_that_is_none_is_refused_with_its_key(search, said):
    with pytest.raises(UserError, match=said):
        read_space(search)
