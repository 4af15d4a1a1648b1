"""The files that a run writes about itself: whole or not at all, and without paths where others will read them."""

import json
import math
import os
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = r"(?:file:/+|~?/|\\\\|[A-Za-z]:[\\/]+)(?=[^\s/\\])"  # how an absolute path begins
PATH = re.compile(rf"""(?<='){ROOT}[^']*(?=')|(?<="){ROOT}[^"]*(?=")|(?<![^\s=:,(\[]){ROOT}[^\s"',)\]]*""")
TEXT_KEYS = re.compile(r"(?=.*(prompt|stop|label|template|tree|_token$))(?!.*_(file|path|dir)$)")


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step, so that no reader ever sees half of it."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8", newline="")
    os.replace(temporary, path)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON in one step."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """`value` as the text of a JSON file. JSON has no NaN and no infinity: they become null."""
    return json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file, {} if there is none."""
    return json.loads(Path(path).read_text(encoding="utf-8")) if Path(path).is_file() else {}


def read_yaml(path: Path) -> dict[str, Any]:
    """The content of a YAML file, {} if there is none."""
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {} if path.is_file() else {}


def finite(value: Any) -> Any:
    """A copy in which numbers that JSON does not have, NaN and infinity, are None."""
    if isinstance(value, dict):
        return {key: finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def without_paths(value: Any, key: str = "") -> Any:
    """A copy with each absolute path cut to its last part, and Hub tokens masked, for what others will read. Texts
    that the model sees (prompts, labels, stop sequences; told by their key) are left alone: serving needs them."""
    if TEXT_KEYS.match(key):
        return value
    if isinstance(value, dict):
        return {k: without_paths(v, str(k)) for k, v in value.items()}
    if isinstance(value, list):
        return [without_paths(v, key) for v in value]
    if not isinstance(value, str):
        return value
    whole = key != "command" and re.fullmatch(ROOT + r".*", value)  # a path that is the whole value may hold spaces
    value = last_part(value) if whole else PATH.sub(lambda match: last_part(match.group()), value)
    return re.sub(r"\bhf_\w{20,}", "hf_***", value)


def last_part(path: str) -> str:
    """The file or folder that a path ends in."""
    return re.split(r"[/\\]+", path.rstrip("/\\"))[-1]
