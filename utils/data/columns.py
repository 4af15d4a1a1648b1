"""The columns of a data set, and how their values are read."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from utils.arguments import DataArguments, UserError
from utils.data.shapes import check_format, find_format
from utils.data.sources import column_names, given_splits


@dataclass(frozen=True)
class Columns:
    """The columns of a data set, and how their values are read. `task.json` stores it as `raw_columns`.

    input, target: input text, and target text or label. Training drops rows that lack either.
    parts, delimiter: columns whose texts, with the delimiter between them, are the input; () is a column `input`.
    optional: further texts, which may be empty.
    lists: one column of options (see `read_options`), or two or more columns with one option each.
    index: the correct option (see `find_answer`); -1 drops the row as unlabelled.
    index_base: number of the first option.
    label: the target if it is a label, which keeps its spelling.
    label_list: whether a row has a list of labels.
    kept: further columns for templates and code, which stay as they are.
    strip_pattern: regular expression of what is removed from input texts and turns.
    lowercase: whether texts, turns and options are lowercased.
    dataset_format: a key of `shapes.FORMATS`. Unless it is `columns`, the columns above are those that `to_columns`
        makes, and rows have `system` and `history`, too.
    """

    input: str
    target: str | None = None
    parts: tuple[str, ...] = ()
    delimiter: str = " "
    optional: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    index: str | None = None
    index_base: int | None = None
    label: str | None = None
    label_list: bool = False
    kept: tuple[str, ...] = ()
    strip_pattern: str | None = None
    lowercase: bool = False
    dataset_format: str = "columns"

    @property
    def has_turns(self) -> bool:
        return self.dataset_format != "columns"

    @property
    def inputs(self) -> list[str]:
        return [self.input, *self.optional, *(["system"] if self.has_turns else [])]

    @property
    def texts(self) -> list[str]:
        return [*self.inputs, *([self.target] if self.target else [])]

    @property
    def given(self) -> list[str]:
        """The columns that rows need to have, unless they are dialogues."""
        texts = [name for name in self.texts if not self.parts or name != self.input]
        return [*self.parts, *texts, *self.lists, *([self.index] if self.index else [])]

    @property
    def options(self) -> str | None:
        return "options" if len(self.lists) > 1 else self.lists[0] if self.lists else None

    @property
    def read(self) -> list[str]:
        """The columns of `read_row`."""
        made = [*(["history"] if self.has_turns else []), *([self.options] if self.options else [])]
        return [*self.inputs, *made, *self.kept]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Columns":
        """Return the columns that `task.json` stores."""
        made: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return cls(**made)

    def to_dict(self) -> dict[str, Any]:
        """Return the columns for `task.json`; serving reads no labels."""
        values = dataclasses.asdict(self)
        del values["label_list"]
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def question_columns(
    args: DataArguments,
    dataset_format: str,
    question: str | None,
    answer: str | None,
    context: str | None,
    options: Sequence[str] | None,
    answer_index: str | None,
    index_base: int | None,
) -> Columns:
    """Return the columns of questions and answers, for the keys of a recipe; None is a key that is not given.

    A recipe that names a column has the format `columns`; `auto` is what the columns of the training rows show.

    Raises:
        UserError: a key has a wrong value, or the training rows show several formats.
    """
    if index_base is not None and (index_base not in (0, 1) or not options):
        raise UserError(f"`answer_index_base` is {index_base}: give 0 or 1, with `options_column`.")
    if question and question == answer:
        raise UserError(f"`question_column` and `answer_column` are both {question}: dialogues need neither key.")
    dataset_format = check_format(dataset_format, has_columns=any((question, answer, context, options)))
    if dataset_format == "auto":
        given_splits(args)
        dataset_format = find_format(column_names(args), str(args.train_file or args.dataset_name))
    context = context or ("context" if dataset_format == "alpaca" else None)
    return Columns(
        input=question or "question",
        target=None if options else answer or "answer",
        optional=(context,) if context else (),
        lists=tuple(options or ()),
        index=answer_index,
        index_base=index_base,
        kept=tuple(args.keep_columns or ()),
        strip_pattern=args.strip_pattern,
        lowercase=args.lowercase,
        dataset_format=dataset_format,
    )
