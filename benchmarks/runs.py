"""One run of a script for a benchmark."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.json_files import read_json


def run_once(script: Sequence[str], output_dir: Path, keys: Mapping[str, Any]) -> dict[str, Any]:
    """Run a script unless it has finished in this folder, and return its results.

    Args:
        script: name of the script, and its recipe if it has one.
        output_dir: folder of the run.
        keys: further keys; a list becomes several values.
    """
    if not (output_dir / "all_results.json").exists():
        command = [sys.executable, *script, "--output_dir", str(output_dir)]
        for key, value in keys.items():
            command += [f"--{key}", *map(str, value if isinstance(value, list) else [value])]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return read_json(output_dir / "all_results.json")
