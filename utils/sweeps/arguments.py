"""The keys of a sweep file, which are also the flags of `sweep.py`."""

import json
from dataclasses import dataclass, field
from typing import Any

from utils.arguments import UserError


@dataclass
class SweepArguments:
    """What to vary and how to run it."""

    script: str | None = field(default=None, metadata={"help": "Training script, one of run_*.py."})
    recipe: str | None = field(default=None, metadata={"help": "Recipe that every run starts from."})
    metric: str | None = field(default=None, metadata={"help": "Validation metric that selects, `eval_...`."})
    direction: str | None = field(
        default=None,
        metadata={"help": "Whether a lower or a higher metric is better.", "choices": ["minimize", "maximize"]},
    )
    seeds: list[int] | None = field(default=None, metadata={"help": "Every configuration runs once per seed."})
    output_dir: str | None = field(default=None, metadata={"help": "Output folder of the sweep."})
    overrides: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Recipe keys to change in every run."}
    )
    configurations: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Named configurations: name -> keys and values."}
    )
    grid: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Key -> list of values; all combinations run."}
    )
    search: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Key -> low, high, and log or step; or key -> choices."}
    )
    trials: int = field(default=20, metadata={"help": "Number of configurations a search tries, with the first seed."})
    finalists: int = field(default=3, metadata={"help": "Number of best trials to repeat with the other seeds."})
    jobs: int = field(default=1, metadata={"help": "Number of runs in parallel; each gets its own GPUs or CPU cores."})
    config_file: str | None = field(
        default=None, metadata={"help": "Config file for `accelerate launch`, see recipes/accelerate/."}
    )
    most_runs: int = field(default=1000, metadata={"help": "Refuse a sweep with more runs than this."})
    retry_failed: bool = field(default=False, metadata={"help": "Run failed runs again."})
    dry_run: bool = field(default=False, metadata={"help": "Check everything and print the commands."})
    compare: list[str] | None = field(default=None, metadata={"help": "Folders of finished runs to compare."})

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
                raise UserError(f"`{key}` is missing: add it to the sweep file.")
        for key in ("trials", "finalists", "jobs", "most_runs"):
            if getattr(self, key) < 1:
                raise UserError(f"`{key}` is {getattr(self, key)}: give 1 or more.")
        if len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"`seeds` is {self.seeds}, with duplicates: give each seed once.")
        if sum(part is not None for part in (self.configurations, self.grid, self.search)) != 1:
            raise UserError("give exactly one of `configurations`, `grid` and `search`.")
        if self.search is not None and len(self.seeds) < 2:
            raise UserError(
                f"`seeds` is {self.seeds}: a search selects with the first seed and compares with the others, "
                "so give 3 or more."
            )
