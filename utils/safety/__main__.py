"""The command of `utils.safety`: answers, one a line -> findings, one JSON object a line."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.arguments import UserError, parse_recipe, user_errors
from utils.safety import check_question, check_response, risk_level


@dataclass
class SafetyArguments:
    """What to check."""

    input_file: str | None = field(
        default=None,
        metadata={
            "help": "An answer a line: text, or JSON with `response`, `question`, `patient_context`. Else stdin."
        },
    )


def check_line(line: str, where: str) -> dict[str, Any]:
    """Check one line of the command's input: plain text is an answer; an object has `response` and, if wanted,
    `question` and `patient_context`, or a `question` alone.

    Raises:
        UserError: for an object that is not understood. Names the place and the keys, never their values.
    """
    row: Any = {"response": line}
    if line.lstrip().startswith("{"):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where} is not JSON ({str(error).split(': line')[0]}): write one object.") from error
    unknown = set(row) - {"id", "question", "response", "patient_context"}
    if unknown:
        raise UserError(f"{where} has {len(unknown)} unknown keys: write `response`, `question`, `patient_context`.")
    response, question = row.get("response"), row.get("question")
    if not all(value is None or isinstance(value, str) for value in (response, question)) or response == question:
        raise UserError(f"{where} has no text in `response` or `question`: write at least one of them as text.")
    try:
        if response is None:
            findings = check_question(question, row.get("patient_context"))
        else:
            findings = check_response(response, question, row.get("patient_context"))
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    return ({"id": row["id"]} if "id" in row else {}) | {"risk_level": risk_level(findings), "warnings": findings}


def main(argv: list[str] | None = None) -> None:
    with user_errors():
        args, _ = parse_recipe(
            (SafetyArguments,), argv, description="Check answers, one a line; prints a JSON line each."
        )
        name = f"`input_file` {args.input_file}" if args.input_file else "standard input"
        try:
            data = Path(args.input_file).read_bytes() if args.input_file else sys.stdin.buffer.read()
            text = data.decode("utf-8").removeprefix("\ufeff")
        except OSError as error:
            raise UserError(f"{name} cannot be read ({error.strerror}): give a text or jsonl file.") from error
        except UnicodeDecodeError as error:
            line = data[: error.start].count(b"\n") + 1
            raise UserError(f"{name}, line {line}, is not UTF-8 (byte {error.start}): save it as UTF-8.") from error
        for number, line in enumerate(text.split("\n"), start=1):  # splitlines would also split at U+2028
            if line.strip():
                print(json.dumps(check_line(line.rstrip("\r"), f"{name}, line {number}"), ensure_ascii=False))


if __name__ == "__main__":
    main()
