"""Read and write the files that describe a run, atomically, and lock its folder."""

import errno
import fcntl
import json
import logging
import math
import os
from pathlib import Path
from typing import Any

import yaml

logger = logging.getLogger(__name__)
TASK_VERSION = 3  # of `task.json`: raised when code of before would read it wrongly


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, so that nobody finds a partial file: no reader, and no run after a power cut."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError:  # such as a full disk
        temporary.unlink(missing_ok=True)
        raise


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


def hold(path: Path) -> str | None:
    """Lock a file until this process ends, however it ends. Return the process that holds it already, or None."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)  # closed, and so unlocked, by the end of the process alone
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock, which child processes would inherit
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return os.read(lock, 20).decode().partition("\n")[0] or "unknown"
        logger.warning("%s cannot be locked (%s): start no second run there", path, error.strerror)
        return None
    os.write(lock, f"{os.getpid()}\n".encode())
    return None
