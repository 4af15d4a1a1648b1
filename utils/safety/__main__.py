"""Command line of `utils.safety`: reads one answer per line, prints one JSON object with findings per line."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.arguments import UserError, parse_recipe, user_errors
from utils.safety import check_question, check_response, risk_level, unrecognised
from utils.safety.context import SecondStage
from utils.safety.language import unread_language


@dataclass
class SafetyArguments:
    """Input of the command."""

    input_file: str | None = field(
        default=None,
        metadata={
            "help": "One answer per line, as text or JSON (`response`, `question`, `patient_context`); default: stdin."
        },
    )
    safety_model: str | None = field(
        default=None,
        metadata={
            "help": "Second stage: `output_dir` or Hub repository of `make safety-classifier`; default: rules alone."
        },
    )


def check_line(line: str, where: str, second_stage: SecondStage | None = None) -> dict[str, Any]:
    """Check one line of the input.

    Args:
        line: an answer as plain text, or a JSON object with `response`, `question` or both, and optionally
            `patient_context` and `id`.
        where: file and line, for error messages.
        second_stage: see `check_question`.

    Returns:
        {"risk_level", "warnings"}, with the `id` of the line if it has one. `unread_language` names the language of a
        text that the tables cannot read: there, nothing found says nothing. With a `patient_context` also
        `unrecognised`: what no check knows of it.

    Raises:
        UserError: the object is not valid. The message names the line and keys, never their values.
    """
    row: Any = {"response": line}
    if line.lstrip().startswith("{"):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where} is not JSON ({str(error).split(': line')[0]}): write one object.") from error
    unknown = set(row) - {"id", "question", "response", "patient_context"}
    if unknown:
        raise UserError(f"{where} has {len(unknown)} unknown keys: use `response`, `question`, `patient_context`.")
    response, question = row.get("response"), row.get("question")
    if not all(value is None or isinstance(value, str) for value in (response, question)) or response == question:
        raise UserError(f"{where} has no text in `response` or `question`: give at least one as text.")
    try:
        if response is None:
            findings = check_question(question, row.get("patient_context"), second_stage)
        else:
            findings = check_response(response, question, row.get("patient_context"), second_stage)
        report: dict[str, Any] = {"risk_level": risk_level(findings), "warnings": findings}
        if row.get("patient_context") is not None:
            report["unrecognised"] = unrecognised(row["patient_context"])
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    if unread := unread_language(response or "") or unread_language(question or ""):
        report["unread_language"] = unread
    return ({"id": row["id"]} if "id" in row else {}) | report


def main(argv: list[str] | None = None) -> None:
    with user_errors():
        args, _ = parse_recipe(
            (SafetyArguments,), argv, description="Check answers, one per line, and print one JSON object per line."
        )
        second_stage = None
        if args.safety_model:
            from utils.safety.second_stage import load_second_stage  # imports torch, which takes seconds

            second_stage = load_second_stage(args.safety_model)
        name = f"`input_file` {args.input_file}" if args.input_file else "standard input"
        try:
            data = Path(args.input_file).read_bytes() if args.input_file else sys.stdin.buffer.read()
            text = data.decode("utf-8").removeprefix("\ufeff")
        except OSError as error:
            raise UserError(f"{name} cannot be read ({error.strerror}): pass a text or jsonl file.") from error
        except UnicodeDecodeError as error:
            line = data[: error.start].count(b"\n") + 1
            raise UserError(f"{name}, line {line}, is not UTF-8 (byte {error.start}): save it as UTF-8.") from error
        lines = text.removesuffix("\n").split("\n") if text else []  # splitlines() also splits at U+2028
        checked = [check_line(line.rstrip("\r"), f"{name}, line {i}", second_stage) for i, line in enumerate(lines, 1)]
        for report in checked:  # once every line is known to be readable: one object per line, for an empty one, too
            print(json.dumps(report, ensure_ascii=False))


if __name__ == "__main__":
    main()
