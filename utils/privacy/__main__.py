"""Count the rows of a file that seem to identify people, before a model learns them.

    python -m utils.privacy --input_file notes.csv

Prints column -> kind -> number of rows, and no text. `pip install -r requirements/privacy.txt` adds Presidio, which
finds names of persons without a title.
"""

import json
from dataclasses import dataclass, field

from utils.arguments import UserError, parse_recipe, user_errors
from utils.data.files import read_rows
from utils.privacy.identifiers import count_identifiers


@dataclass
class PrivacyArguments:
    """Which file to read."""

    input_file: str | None = field(default=None, metadata={"help": "csv, tsv, jsonl, json or parquet; also .gz."})


def main(args: PrivacyArguments) -> None:
    if args.input_file is None:
        raise UserError("`input_file` is missing: give the file whose rows to look through.")
    print(json.dumps(count_identifiers(row for _, row in read_rows(args.input_file)), indent=2, ensure_ascii=False))


if __name__ == "__main__":
    with user_errors():
        main(*parse_recipe((PrivacyArguments,), description=__doc__)[:1])
