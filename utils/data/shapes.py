"""Read the shapes in which data sets write questions, answers and dialogues: a row as written -> a row of columns.

Whatever its shape, a dialogue becomes the columns `system`, `history` (a list of the earlier turns, user and assistant
in turn), `question` (the last turn of the user) and `answer` (what the assistant replies to it).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from utils.arguments import UserError

# `dataset_format` -> columns that it needs; all others of `READ` may be missing
FORMATS = {
    "columns": ("question", "answer"),
    "alpaca": ("instruction", "output"),
    "sharegpt": ("conversations",),
    "messages": ("messages",),
    "prompt_completion": ("prompt", "completion"),
    "preference": ("chosen",),
}
OTHER = ("tools", "functions", "images")  # refused unless they are empty
OPTIONAL = {"alpaca": ("input", "system", "history"), "sharegpt": ("system", *OTHER), "messages": OTHER,
            "prompt_completion": OTHER, "preference": ("prompt", *OTHER)}  # fmt: skip
DIALOGUE = ("system", "history", "question", "answer")
ROLES = {"system": "system", "developer": "system", "user": "user", "human": "user"}
ROLES |= dict.fromkeys(("assistant", "gpt", "ai", "model", "bot", "chatgpt"), "assistant")
TOOL_ROLES = ("tool", "function", "function_call", "tool_call", "observation", "tool_response", "ipython")
# Parts of a turn that a model would have to read or write
UNREAD = ("tool_calls", "function_call", "tool_call_id", "audio", "reasoning_content", "thinking")


def to_columns(row: Mapping[str, Any], dataset_format: str, where: str) -> dict[str, Any] | None:
    """Return a row with its dialogue as `DIALOGUE` columns, and alpaca's input as `context`; others stay as they are.

    Args:
        row: as written. A row without the columns of the format stays as it is: it may be a question alone.
        dataset_format: a key of `FORMATS`; `columns` leaves every row as it is.
        where: file and row, for error messages.

    Returns:
        the row, with an empty `answer` if the user has the last word; None if the turns do not alternate between user
        and assistant, after at most one system turn.

    Raises:
        UserError: the row has another shape, or turns that are not text, such as calls of tools.
    """
    if dataset_format == "columns" or not {*FORMATS[dataset_format], "prompt"} & set(row):
        return dict(row)
    _refuse_unread({key: row.get(key) for key in OTHER}, where)
    turns = _alpaca(row, where) if dataset_format == "alpaca" else _turns(row, dataset_format, where)
    system = [text for role, text in turns[:1] if role == "system"]
    turns = turns[len(system) :]
    if not turns or any(role != ("user", "assistant")[i % 2] for i, (role, _) in enumerate(turns)):
        return None
    *history, question, answer = [text for _, text in turns] + ([""] if len(turns) % 2 else [])
    made: dict[str, Any] = {"system": "".join(system), "history": history, "question": question, "answer": answer}
    if dataset_format == "alpaca":
        made["context"] = row.get("input")
    return {**row, **made}


def join_paragraphs(value: Any) -> Any:
    """Return a list of paragraphs, or PubMedQA's object with `contexts`, as one text, a paragraph a line. Both are
    also read from JSON text, as in csv. Any other value is returned as it is, a list of single words too."""
    parsed = _from_json(value)
    if isinstance(parsed, Mapping):
        parsed = parsed.get("contexts")
    if not isinstance(parsed, list) or not all(isinstance(part, str) for part in parsed):
        return value
    return "\n".join(parsed) if any(len(part.split()) > 1 for part in parsed) else value


def first_answer(value: Any) -> tuple[Any, bool]:
    """Return the first text of SQuAD's `{"text": [...], "answer_start": [...]}`, or of a list of such objects with one
    text each, also from JSON text, and whether it has other texts as well. An unanswerable question gives "", as
    does an empty list, and a list of one text gives this text. Any other value is returned as it is."""
    parsed = _from_json(value)
    if value == [] or (isinstance(value, list) and len(value) == 1 and isinstance(value[0], str)):
        return "".join(value), False
    if isinstance(parsed, list) and parsed and all(isinstance(one, Mapping) and "text" in one for one in parsed):
        parsed = {"text": [one.get("text") for one in parsed], "answer_start": []}
    if not isinstance(parsed, Mapping) or not {"text", "answer_start"} <= set(parsed):
        return value, False
    texts = parsed["text"] if isinstance(parsed["text"], list) else [parsed["text"]]
    return next(iter(texts), ""), len(set(map(str, texts))) > 1


def squad_questions(rows: Sequence[Any]) -> Iterator[Any]:
    """Yield a row per question of a file as SQuAD publishes it, `{"paragraphs": [{"context": ..., "qas": [...]}]}`;
    other rows as they are."""
    for row in rows:
        parts = row.get("paragraphs") if isinstance(row, Mapping) else None
        if isinstance(parts, list) and all(isinstance(part, Mapping) and "qas" in part for part in parts):
            yield from ({"context": part.get("context")} | question for part in parts for question in part["qas"])
        else:
            yield row


def _turns(row: Mapping[str, Any], dataset_format: str, where: str) -> list[tuple[str, str]]:
    """Return role and text of each turn."""
    system = str(row.get("system") or "").strip() if dataset_format == "sharegpt" else ""
    turns = [("system", system)] if system else []
    if dataset_format in ("sharegpt", "messages"):
        (column,) = FORMATS[dataset_format]
        return turns + _messages(row.get(column), column, "", where)
    column = "completion" if dataset_format == "prompt_completion" else "chosen"
    prompt, reply = _messages(row.get("prompt"), "prompt", "user", where), row.get(column)
    replies = _messages(reply, column, "assistant", where)
    if column == "chosen" and replies and replies[0][0] != "assistant":  # `chosen` repeats the prompt
        if replies[: len(prompt)] != prompt:
            raise UserError(f"{where}: `chosen` does not begin with `prompt`: give the reply alone, or drop `prompt`.")
        return replies
    return prompt + replies


def _alpaca(row: Mapping[str, Any], where: str) -> list[tuple[str, str]]:
    """Return the turns of a row in alpaca's format; `history` and `system` as LlamaFactory has them."""
    history = _from_json(row.get("history")) or []
    if not isinstance(history, list) or any(not isinstance(pair, list) or len(pair) != 2 for pair in history):
        raise UserError(f"{where}: `history` is not a list of pairs: give [[question, answer], ...].")
    turns = [("system", row["system"])] if row.get("system") else []
    for pair in [*history, [row.get("instruction"), row.get("output")]]:
        turns += zip(("user", "assistant"), pair, strict=True)
    if any(isinstance(text, list) for _, text in turns):
        raise UserError(f"{where}: a question or an answer is a list: give text.")
    return [(role, _content(text, role, where)) for role, text in turns]


def _messages(value: Any, column: str, role: str, where: str) -> list[tuple[str, str]]:
    """Return role and text of each turn of a list of messages. With a `role`, a text is a turn of that role."""
    parsed = _from_json(value)
    if parsed is None or parsed == "":
        return []
    if isinstance(parsed, Mapping) and all(isinstance(part, list) for part in parsed.values()):
        if len(set(map(len, parsed.values()))) > 1:
            raise UserError(
                f"{where}: `{column}` has lists of unequal length: give objects with `role` and `content`."
            )
        # `Sequence` of `datasets` makes an object of lists of a list of objects
        parsed = [dict(zip(parsed, turn, strict=True)) for turn in zip(*parsed.values(), strict=True)]
    if isinstance(parsed, list) and all(isinstance(turn, Mapping) for turn in parsed):
        return [_turn(turn, column, where) for turn in parsed]
    if not role or not isinstance(value, str | int | float):
        raise UserError(f"{where}: `{column}` is not a list of turns: give objects with `role` and `content`.")
    return [(role, _content(value, column, where))]


def _turn(turn: Mapping[str, Any], column: str, where: str) -> tuple[str, str]:
    keys = ("role", "content") if turn.get("role") is not None else ("from", "value")
    role = str(turn.get(keys[0]) or "").strip().lower()
    if role in TOOL_ROLES:
        raise UserError(f"{where}: `{column}` has a turn of a tool, which is not supported: delete the row.")
    if role not in ROLES:  # the value itself may be text that slipped into the wrong place
        raise UserError(f"{where}: `{column}` has a turn with an unknown role: use user, assistant or system.")
    _refuse_unread(turn, f"{where}, `{column}`")
    if any(turn.get(key) in (0, False) for key in ("weight", "train")):
        raise UserError(f"{where}: `{column}` excludes a turn from the loss, which is not supported: delete the row.")
    return ROLES[role], _content(turn.get(keys[1]), column, where)


def _content(value: Any, column: str, where: str) -> str:
    """Return the text of a turn: a string, or parts of type text as the OpenAI API has them."""
    parts = value if isinstance(value, list) else [value]
    texts = [part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else part for part in parts]
    if not all(text is None or isinstance(text, str | int | float) for text in texts):
        raise UserError(f"{where}: `{column}` has a turn that is not text: give text, or parts of type text.")
    return "\n".join(str(text) for text in texts if text is not None)


def _refuse_unread(values: Mapping[str, Any], where: str) -> None:
    for key, value in values.items():
        if key in (*UNREAD, *OTHER) and value not in (None, "", "[]", [], {}):
            raise UserError(f"{where}: `{key}` is given, which is not supported: delete the row or the key.")


def _from_json(value: Any) -> Any:
    """Parse the JSON text of a list or an object, as csv stores them."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
