"""The columns of a data set, and how their values are read."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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
