"""The parts of `sweep.py`: plan the runs, execute them, search, and compare the results."""
