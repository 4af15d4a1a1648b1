"""Run a script with several configurations and seeds, and test whether the best is better than the first.

    python sweep.py recipes/sweeps/quickstart.yaml
    python sweep.py recipes/sweeps/distilbert_learning_rate.yaml --seeds 1 2 3 4 5 --jobs 2
    python sweep.py recipes/sweeps/phi2_search.yaml --dry_run
    python sweep.py --compare outputs/quickstart-classification outputs/another

A sweep file names the script, its recipe, the metric, the seeds and what to vary: named `configurations`, a `grid` of
values, or a `search` with Optuna. All runs share one split. The validation metric selects the winner, which alone is
evaluated on the test rows. The same command resumes an interrupted sweep. The last command compares finished runs on
their test rows. `make install-sweeps` installs what this script needs.
"""

import shlex
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import utils  # noqa: F401  # before torch and bitsandbytes, whose threads and messages it settles

# isort: split
from optuna.distributions import BaseDistribution
from tqdm import tqdm

from utils.arguments import UserError, parse_recipe, user_errors, write_recipe
from utils.json_files import read_json, write_json
from utils.sweeps.arguments import SweepArguments
from utils.sweeps.compare import compare_runs
from utils.sweeps.plan import (
    OWN_KEYS,
    Run,
    check_metric,
    check_size,
    expand_grid,
    grid_ranges,
    hold_folder,
    keep_plan,
    load_arguments,
    make_run,
    name_configurations,
    processes_of,
    resolve,
    resolve_all,
)
from utils.sweeps.plots import plot_comparison
from utils.sweeps.report import check_same_rows, outcome, summarize, verdict, write_report, write_tables
from utils.sweeps.running import OWN_FILES, ROW, drop_checkpoints, execute
from utils.sweeps.search import bad_step, best_trials, corners, propose, ranges_of, read_space

UNCHANGED = "recipe"  # the first configuration of a search: the best trials are compared with it
RunOf = Callable[[str, dict[str, Any], int], Run]  # configuration name, changed values, seed -> run


def run_trials(
    args: SweepArguments, space: dict[str, BaseDistribution], run_of: RunOf, processes: int, bar: tqdm
) -> list[dict[str, Any]]:
    """Run the trials of a search in batches of `jobs` and return their rows; stop early if the space is exhausted."""
    rows: list[dict[str, Any]] = []
    seed, maximize = args.seeds[0], args.direction == "maximize"

    def pruned_at(run: Run, history: dict[int, float]) -> int | None:
        return bad_step(space, rows, run.values, history, args.metric, maximize)

    while len(rows) < args.trials:
        batch: list[Run] = []
        for number in range(len(rows), min(len(rows) + args.jobs, args.trials)):
            tried = [row["values"] for row in rows] + [run.values for run in batch]
            values = propose(space, rows, tried, number, seed, args.metric, maximize)
            if values is not None:
                batch.append(run_of(f"trial-{number:0{len(str(args.trials))}}", values, seed))
        if not batch:
            break
        rows.extend(execute(batch, args.metric, args.jobs, processes, bar, None, pruned_at))
    return rows


def evaluate_best(run: Run, output_dir: Path, metric: str, processes: int, bar: tqdm) -> dict[str, Any]:
    """Copy a finished run to `best/`, evaluate the copy on the test rows, and return its results and `seed`."""
    best = output_dir / "best"
    if tested := read_json(best / ROW):
        if (tested["configuration"], tested["seed"]) != (run.configuration, run.seed):
            raise UserError(
                f"`{best}` holds the earlier winner `{tested['configuration']}`, which has seen the test rows; now "
                f"`{run.configuration}` is best: delete {best} to test it as well."
            )
    if not best.exists():
        shutil.rmtree(output_dir / ".best", ignore_errors=True)
        shutil.copytree(run.folder, output_dir / ".best", ignore=shutil.ignore_patterns(*OWN_FILES))
        (output_dir / ".best").rename(best)
    values = {"--evaluate_test": "true", "--output_dir": str(best)}
    command = [values.get(before, word) for before, word in zip(["", *run.command], run.command, strict=False)]
    (row,) = execute([run._replace(folder=best, command=command)], metric, 1, processes, bar, run.seed)
    if row["status"] != "finished":
        raise UserError(
            f"the test of the winner failed ({row['reason']}): see {best}/run.log, then repeat with --retry_failed."
        )
    return read_json(best / "all_results.json") | {"seed": run.seed}


def main(args: SweepArguments) -> None:
    if args.compare:
        output_dir = Path(args.output_dir or "outputs/comparison")
        print(compare_runs(args.compare, output_dir))
        print(f"comparison: {output_dir}/comparison.md")
        return

    # ----- 1. Plan: check every configuration before the first run starts
    output_dir, maximize = Path(args.output_dir), args.direction == "maximize"
    check_metric(args.script, args.metric)
    arguments, overrides = load_arguments(args.script), dict(args.overrides or {})
    base = resolve(arguments, args.recipe, overrides, "`overrides`")
    overrides |= {"split_seed": base.get("split_seed", base.get("seed", 42))}
    base = {key: value for key, value in (base | overrides).items() if key not in OWN_KEYS}
    space: dict[str, BaseDistribution] = {}
    configurations: dict[str, dict[str, Any]] = {UNCHANGED: {}}
    seeds, n_trials = args.seeds, 0
    if args.search is not None:
        space = read_space(args.search)
        for values in corners(space):
            resolve(arguments, args.recipe, overrides | values, "`search`")
        seeds, n_trials = args.seeds[1:], args.trials
        check_size(n_trials + (args.finalists + 1) * len(seeds), args.most_runs)
    else:
        if args.grid is None:
            configurations = name_configurations(args.configurations or {})
        else:
            configurations = expand_grid(args.grid, len(seeds), args.most_runs)
        check_size(len(configurations) * len(seeds), args.most_runs)
        configurations = resolve_all(arguments, args.recipe, overrides, configurations)
    processes = processes_of(args.config_file)
    # Said always: without it one run would take all GPUs, and several one each, with another effective batch size
    config = ["--config_file", args.config_file] if args.config_file else []
    config += ["--num_processes", str(processes)]
    if processes > 1 and args.jobs > 1:
        config += ["--main_process_port", "0"]  # any free port: parallel runs cannot share the default
    launch = [sys.executable, "-m", "accelerate.commands.launch", *config]
    recipe = str(output_dir / "recipe.yaml")

    def run_of(name: str, values: dict[str, Any], seed: int) -> Run:
        return make_run(launch, args.script, recipe, output_dir, name, values, seed)

    if args.dry_run:
        for name, values in configurations.items():
            for seed in seeds:
                shown = ["accelerate", "launch", *config]
                run = make_run(shown, args.script, args.recipe, output_dir, name, overrides | values, seed)
                print(shlex.join(run.command))
        if space:
            print(
                f"# plus {n_trials} trials with seed {args.seeds[0]}; the best {args.finalists} repeat with all others"
            )
        return

    with hold_folder(output_dir):
        plan = {key: getattr(args, key) for key in ("script", "metric", "direction", "seeds", "config_file")}
        plan |= {"recipe": base, "configurations": configurations, "search": args.search}
        if space:  # the proposals depend on these
            plan |= {key: getattr(args, key) for key in ("trials", "finalists", "jobs")}
        keep_plan(output_dir / "sweep.json", plan)
        write_recipe(Path(recipe), base)
        if args.retry_failed:
            for path in [*output_dir.glob(f"runs/*/{ROW}"), *output_dir.glob(f"best/{ROW}")]:
                if read_json(path)["status"] == "failed":
                    path.unlink()

        # ----- 2. Runs
        finalists = min(args.finalists, n_trials)
        total = n_trials + (len(configurations) + finalists) * len(seeds) + 1
        with tqdm(total=total, unit="run", desc=output_dir.name) as bar:
            trials = run_trials(args, space, run_of, processes, bar) if space else []
            finals = best_trials(trials, args.metric, maximize, args.finalists)
            configurations |= {row["configuration"]: row["values"] for row in finals}
            runs = [run_of(name, values, seed) for name, values in configurations.items() for seed in seeds]
            rows = execute(runs, args.metric, args.jobs, processes, bar, seeds[0])
            check_same_rows(trials + rows)
            # ----- 3. Choose on validation, test the winner
            summaries = summarize(rows, list(configurations), seeds, args.metric)
            found = outcome(summaries, seeds, maximize)
            test = {}
            if found["chosen"]:
                winner = run_of(found["chosen"], configurations[found["chosen"]], seeds[0])
                test = evaluate_best(winner, output_dir, args.metric, processes, bar)
                for run in runs:
                    drop_checkpoints(run.folder)

        # ----- 4. Report
        every = trials + rows
        keys = list(args.grid or args.search or {})
        ranges = ranges_of(space) if space else grid_ranges(configurations, keys)
        note = f"All runs share the split of seed {overrides['split_seed']}."
        write_tables(output_dir, every, summaries, args.metric)
        (output_dir / "plots").mkdir(exist_ok=True)
        plot = output_dir / "plots" / "hyperparameter_comparison.png"
        plot_comparison(summaries, every, seeds, args.metric, found["chosen"], keys, ranges, plot)
        results = {key: getattr(args, key) for key in ("script", "recipe", "metric", "direction")}
        results |= {"seeds": seeds, **found, "configurations": summaries, "test": test}
        write_json(output_dir / "all_results.json", results)
        report = output_dir / "report.md"
        title = f"Sweep: {output_dir.name}"
        write_report(report, title, summaries, found, every, seeds, args.metric, ranges, note, test)
        print(verdict(summaries, found, seeds, args.metric), f"report: {report}", sep="\n")
    if not found["chosen"]:
        raise UserError(f"no configuration finished with every seed: see the reasons in {report}.")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with user_errors():
            main(*parse_recipe((SweepArguments,), description=__doc__)[:1])
    except KeyboardInterrupt:
        print("stopped: run the same command to resume", file=sys.stderr)
        sys.exit(130)
