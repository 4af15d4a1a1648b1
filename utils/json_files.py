"""Read and write the files that describe a run, atomically."""

import json
import math
import os
from pathlib import Path
from typing import Any

import yaml


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
