"""Read and write the files that describe a run: atomically, and without local paths where others read them."""

import json
import math
import os
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = r"(?:file:/+|~?/|\\\\|[A-Za-z]:[\\/]+)(?=[^\s/\\])"  # start of an absolute path
PATH = re.compile(rf"""(?<='){ROOT}[^']*(?=')|(?<="){ROOT}[^"]*(?=")|(?<![^\s=:,(\[]){ROOT}[^\s"',)\]]*""")
TEXT_KEYS = re.compile(r"(?=.*(prompt|stop|label|template|tree|_token$))(?!.*_(file|path|dir)$)")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, so that no reader sees a partial file."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8", newline="")
    os.replace(temporary, path)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON atomically."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Return `value` as the text of a JSON file. JSON has no NaN or infinity, so these become null."""
    return json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file; {} if it does not exist."""
    return json.loads(Path(path).read_text(encoding="utf-8")) if Path(path).is_file() else {}


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file; {} if it does not exist."""
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {} if path.is_file() else {}


def finite(value: Any) -> Any:
    """Return a copy with None in place of NaN and infinity, which JSON does not support."""
    if isinstance(value, dict):
        return {key: finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def without_paths(value: Any, key: str = "") -> Any:
    """Return a copy with absolute paths reduced to their last part and Hub tokens masked, for publication. Texts that
    the model reads (prompts, labels, stop sequences; identified by key) are unchanged, since serving needs them."""
    if TEXT_KEYS.match(key):
        return value
    if isinstance(value, dict):
        return {k: without_paths(v, str(k)) for k, v in value.items()}
    if isinstance(value, list):
        return [without_paths(v, key) for v in value]
    if not isinstance(value, str):
        return value
    whole = key != "command" and re.fullmatch(ROOT + r".*", value)  # a path that is the whole value may contain spaces
    value = last_part(value) if whole else PATH.sub(lambda match: last_part(match.group()), value)
    return re.sub(r"\bhf_\w{20,}", "hf_***", value)


def last_part(path: str) -> str:
    """Return the file or folder name at the end of a path."""
    return re.split(r"[/\\]+", path.rstrip("/\\"))[-1]
