"""Parts of `sweep.py`: what to run, running it, searching, and saying what is better and how sure that is."""
