"""JSON files, written whole or not at all."""

import json
import math
import os
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON in one step, so that no reader ever sees half a file. JSON has no NaN and no infinity:
    they become null."""
    path = Path(path)
    text = json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text + "\n", encoding="utf-8")
    os.replace(temporary, path)


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file, {} if there is none."""
    return json.loads(Path(path).read_text(encoding="utf-8")) if Path(path).is_file() else {}


def finite(value: Any) -> Any:
    """A copy in which numbers that JSON does not have, NaN and infinity, are None."""
    if isinstance(value, dict):
        return {key: finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
