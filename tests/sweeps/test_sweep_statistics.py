"""What a sweep says of its runs: tests against scipy and textbook values, and how often noise is called a winner."""

import numpy as np
import pytest
from scipy.stats import binom, ttest_rel

from utils.sweeps.report import advice, edge, outcome, verdict
from utils.sweeps.statistics import choose, compare, holm, is_winner, seeds_needed

SIMULATIONS = 1000


def test_differences_are_those_of_a_paired_t_test_over_seeds():
    values = np.random.default_rng(0).normal(0.7, 0.02, size=(3, 5))
    rows = compare(values)
    for row, own in zip(rows[1:], values[1:], strict=True):
        expected = ttest_rel(own, values[0])
        assert row["p"] == pytest.approx(expected.pvalue)
        assert row["ci95"] == pytest.approx(list(expected.confidence_interval(0.95)))
        assert row["difference"] == pytest.approx(own.mean() - values[0].mean())
    assert [row["sd"] for row in rows] == pytest.approx(values.std(axis=1, ddof=1).tolist())
    assert "p" not in rows[0]


def test_holm_is_that_of_his_paper_and_never_below_the_plain_p():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.5]) == [1.0, 1.0] and holm([0.02]) == [0.02] and holm([]) == []


def test_a_seed_that_failed_somewhere_is_left_out_of_that_pair_alone():
    values = np.array([[0.5, 0.6, np.nan], [0.7, 0.9, 0.8], [0.6, np.nan, np.nan]])
    first, second, third = compare(values)
    assert (first["seeds"], second["seeds"], third["seeds"]) == (2, 3, 1)
    assert second["pairs"] == 2 and second["difference"] == pytest.approx(0.25)
    assert third["pairs"] == 1 and third["p"] is None and third["p_holm"] is None and third["sd"] is None
    assert second["p_holm"] == second["p"]  # the third was not tested and counts for nothing
    assert compare(np.full((2, 2), np.nan))[1]["difference"] is None


def test_seeds_that_change_nothing_are_one_observation_and_no_test():
    same = compare(np.array([[0.5, 0.6, 0.7], [0.6, 0.7, 0.8]]))[1]  # equal up to rounding
    assert same["difference"] == pytest.approx(0.1) and same["p"] is None


def test_the_best_mean_is_chosen_of_the_configurations_that_finished_everywhere():
    rows = compare(np.array([[0.5, 0.5], [0.9, np.nan], [0.6, 0.8], [0.7, 0.7]]))
    assert choose(rows, 2, maximize=True) == 2  # 0.9 has one seed; of the two with 0.7 the earlier
    assert choose(rows, 2, maximize=False) == 0
    assert choose(compare(np.array([[np.nan, 0.5]])), 2, True) is None


def test_a_winner_is_better_in_the_direction_asked_for():
    values = np.array([[0.50, 0.52, 0.49, 0.51], [0.71, 0.70, 0.69, 0.72]])
    assert is_winner(compare(values)[1], maximize=True)
    assert not is_winner(compare(values)[1], maximize=False)
    assert is_winner(compare(values[::-1])[1], maximize=False)


@pytest.mark.parametrize("spreads", ["equal", "unequal"])
@pytest.mark.parametrize("n_configurations", [3, 9])
@pytest.mark.parametrize("n_seeds", [2, 3, 5])
def test_configurations_that_differ_by_the_seed_alone_have_a_winner_at_most_5_percent_of_the_time(
    n_seeds, n_configurations, spreads
):
    rng = np.random.default_rng([n_seeds, n_configurations])
    scale = np.linspace(1, 5, n_configurations)[:, None] if spreads == "unequal" else 1.0
    winners = 0
    for number in range(SIMULATIONS):
        of_the_seed = rng.normal(0, 0.02, size=n_seeds)  # seeds are easy or hard for all
        values = 0.8 + of_the_seed + rng.normal(0, 0.01, size=(n_configurations, n_seeds)) * scale
        rows = compare(values)
        best = choose(rows, n_seeds, maximize=number % 2 == 0)
        winners += best > 0 and is_winner(rows[best], maximize=number % 2 == 0)
    # a true rate of 5 % exceeds this in one of 1,000 tests: 72 of 1,000
    assert winners <= binom.ppf(0.999, SIMULATIONS, 0.05)


def test_a_true_difference_is_found_as_often_as_the_power_computation_says():
    rng = np.random.default_rng(1)
    n = seeds_needed(0.02, 0.02, comparisons=1)
    assert n == 10  # d = 1: as G*Power has it
    found = sum(
        is_winner(compare(np.stack([np.zeros(n), rng.normal(0.02, 0.02, n)]))[1], True) for _ in range(SIMULATIONS)
    )
    assert abs(found / SIMULATIONS - 0.8) < 0.06  # n is rounded up: 0.803 is exact


def test_seeds_needed_are_those_of_the_textbook():
    assert seeds_needed(0.5, 1.0, 1) == 34 and seeds_needed(-0.8, 1.0, 1) == 15  # Cohen's medium and large effect
    assert seeds_needed(0.5, 1.0, 8) > 34
    assert seeds_needed(0.01, 1.0, 1) is None


# ----- In words


def summaries(values: list[list[float]], names: list[str] | None = None) -> list[dict]:
    rows = compare(np.array(values, dtype=float))
    names = names or [f"c{i}" for i in range(len(rows))]
    return [{"configuration": n, "values": {}, "minutes": 2.0} | row for n, row in zip(names, rows, strict=True)]


@pytest.mark.parametrize(
    ("values", "said", "more_than_noise"),
    [
        ([[0.50, 0.52, 0.49], [0.71, 0.70, 0.72]], "**The difference is significant.**", True),
        ([[0.50, 0.60, 0.40], [0.55, 0.52, 0.58]], "**The difference is not significant**", False),
        ([[0.50], [0.60]], "**The difference was not tested**: one seed", False),
        ([[0.50, 0.60], [0.60, 0.70]], "**The difference was not tested**: the difference is the same", False),
        ([[0.70, 0.60], [0.60, 0.40]], "It is the first configuration: none of the 1 others", False),
        ([[np.nan, 0.60], [0.60, np.nan]], "none was selected", False),
    ],
)
def test_the_verdict_says_what_was_found_and_no_more(values, said, more_than_noise):
    rows = summaries(values)
    found = outcome(rows, list(range(len(values[0]))), maximize=True)
    text = verdict(rows, found, list(range(len(values[0]))), "eval_macro_f1")
    assert said in text and found["more_than_noise"] is more_than_noise
    assert text.count("significant") == said.count("significant")


def test_where_seeds_are_too_few_the_advice_says_how_many_would_do():
    rows = summaries([[0.50, 0.60, 0.40], [0.55, 0.62, 0.48]])
    found = outcome(rows, [1, 2, 3], True)
    needed = seeds_needed(rows[1]["difference"], rows[1]["sd_difference"], 1)
    (line,) = [line for line in advice(rows, found, [], {}) if "power" in line]
    assert f"{needed} seeds would" in line and "80%" in line and found["seeds_needed"] == needed


def test_a_best_value_at_the_end_of_what_was_tried_is_named():
    assert edge(1e-3, 1e-5, 1e-3, log=True) == "higher" and edge(1e-5, 1e-5, 1e-3, log=True) == "lower"
    assert edge(1e-4, 1e-5, 1e-3, log=True) is None and edge(0.2, 0.0, 0.2, log=False) == "higher"
    assert edge(9.7e-4, 1e-5, 1e-3, log=True) == "higher"  # as good as the end
    assert edge("cosine", 0, 1, log=False) is None and edge(1, 1, 1, log=False) is None
    rows = summaries([[0.5, 0.52], [0.7, 0.75]])
    rows[1]["values"] = {"learning_rate": 1e-3}
    lines = advice(rows, outcome(rows, [1, 2], True), [], {"learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}})
    assert any("`learning_rate` is best at the higher end" in line and "0.001" in line for line in lines)


def test_failed_runs_are_named_with_their_reasons():
    rows = summaries([[0.5, 0.52], [0.4, 0.45]])
    runs = [{"status": "failed", "reason": "torch.OutOfMemoryError"}, {"status": "finished", "reason": ""}]
    lines = advice(rows, outcome(rows, [1, 2], True), runs, {})
    assert any(line.startswith("1 of 2 runs failed (torch.OutOfMemoryError)") for line in lines)
