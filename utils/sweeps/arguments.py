"""The keys of a sweep file, which are also the flags of `sweep.py`."""

import contextlib
import json
from argparse import ArgumentTypeError
from dataclasses import dataclass, field
from typing import Any

from utils.arguments import UserError


class JsonMapping(dict[str, Any]):
    """A mapping of the sweep file, which reaches argparse as JSON."""

    def __init__(self, text: str) -> None:
        value: Any = text
        with contextlib.suppress(ValueError):
            value = json.loads(text)
        if not isinstance(value, dict):
            raise ArgumentTypeError(f"{type(value).__name__} given, write `key: value` lines.")
        super().__init__(value)


@dataclass
class SweepArguments:
    """What to vary and how to run it."""

    script: str = field(default="", metadata={"help": "Training script, one of run_*.py."})
    recipe: str = field(default="", metadata={"help": "Recipe that every run starts from."})
    metric: str = field(default="", metadata={"help": "Validation metric that selects, `eval_...`."})
    direction: str = field(
        default="",
        metadata={"help": "Whether a lower or a higher metric is better.", "choices": ["minimize", "maximize"]},
    )
    seeds: list[int] = field(default_factory=list, metadata={"help": "Every configuration runs once per seed."})
    output_dir: str = field(default="", metadata={"help": "Output folder of the sweep."})
    overrides: JsonMapping | None = field(default=None, metadata={"help": "Recipe keys to change in every run."})
    configurations: JsonMapping | None = field(
        default=None, metadata={"help": "Named configurations: name -> keys and values."}
    )
    grid: JsonMapping | None = field(default=None, metadata={"help": "Key -> list of values; all combinations run."})
    search: JsonMapping | None = field(
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
        if self.compare:
            return
        for key in ("script", "recipe", "metric", "direction", "seeds", "output_dir"):
            if not getattr(self, key):
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
