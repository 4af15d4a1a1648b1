"""The keys of a sweep's file, which are also the flags of `sweep.py`."""

import json
from dataclasses import dataclass, field
from typing import Any

from utils.arguments import UserError


@dataclass
class SweepArguments:
    """What to vary, and how to run it."""

    script: str | None = field(default=None, metadata={"help": "One of the run_*.py."})
    recipe: str | None = field(default=None, metadata={"help": "The script's recipe, which every run starts from."})
    metric: str | None = field(default=None, metadata={"help": "A number of validation, `eval_...`, that chooses."})
    direction: str | None = field(
        default=None, metadata={"help": "Which way is better.", "choices": ["minimize", "maximize"]}
    )
    seeds: list[int] | None = field(default=None, metadata={"help": "Each configuration runs with each of them."})
    output_dir: str | None = field(default=None, metadata={"help": "Folder of the sweep."})
    overrides: dict[str, Any] | str | None = field(default=None, metadata={"help": "Keys of the recipe, for all."})
    configurations: dict[str, Any] | str | None = field(default=None, metadata={"help": "Name -> keys and values."})
    grid: dict[str, Any] | str | None = field(default=None, metadata={"help": "Key -> values, all combinations."})
    search: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Key -> low, high, and log or step; or choices."}
    )
    trials: int = field(default=20, metadata={"help": "Configurations that a search tries, with the first seed."})
    finalists: int = field(default=3, metadata={"help": "The best trials, which run with the other seeds."})
    jobs: int = field(default=1, metadata={"help": "Runs at once, each with GPUs or a share of the cores of its own."})
    config_file: str | None = field(default=None, metadata={"help": "Of `accelerate launch`: recipes/accelerate/."})
    most_runs: int = field(default=1000, metadata={"help": "A sweep of more runs is refused."})
    retry_failed: bool = field(default=False, metadata={"help": "Run those once more that failed."})
    dry_run: bool = field(default=False, metadata={"help": "Check everything and print the commands."})
    compare: list[str] | None = field(default=None, metadata={"help": "Folders of finished runs, to compare."})

    def __post_init__(self) -> None:
        for key in ("overrides", "configurations", "grid", "search"):
            text = getattr(self, key)
            value = json.loads(text) if isinstance(text, str) else text
            if value is not None and not isinstance(value, dict):
                raise UserError(f"`{key}` is {type(value).__name__}: write `key: value` lines.")
            setattr(self, key, value)
        if self.compare:
            return
        for key in ("script", "recipe", "metric", "direction", "seeds", "output_dir"):
            if getattr(self, key) is None:
                raise UserError(f"`{key}` is not given: write it into the sweep's file.")
        for key in ("trials", "finalists", "jobs", "most_runs"):
            if getattr(self, key) < 1:
                raise UserError(f"`{key}` is {getattr(self, key)}: give 1 or more.")
        if len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"`seeds` {self.seeds} has one twice: give each once.")
        if sum(part is not None for part in (self.configurations, self.grid, self.search)) != 1:
            raise UserError("give exactly one of `configurations`, `grid` and `search`.")
        if self.search is not None and len(self.seeds) < 2:
            raise UserError("`search` chooses with the first of `seeds` and compares with the others: give 3 or more.")
