"""Starts a script as `accelerate launch` does, without torch, whose import takes longer than a toy run."""

import subprocess
import sys

start = next(place for place, word in enumerate(sys.argv) if word.endswith(".py") and place)
sys.exit(min(1, abs(subprocess.run([sys.executable, *sys.argv[start:]]).returncode)))
