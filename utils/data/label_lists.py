"""Whether a data set has one label a text, or lists of them."""

import tempfile
from collections import Counter

from utils.arguments import DataArguments
from utils.data.cleaning import parse_list
from utils.data.sources import given_splits, read_split


def has_label_lists(args: DataArguments, column: str) -> bool:
    """Return whether the first label of the training rows that is not missing is a list, or the JSON text of one."""
    given_splits(args)
    with tempfile.TemporaryDirectory() as folder:
        values = (row.get(column) for *_, row in read_split(args, "train", [column], None, folder, {}, Counter()))
        return parse_list(next((value for value in values if value not in (None, "")), None)) is not None
