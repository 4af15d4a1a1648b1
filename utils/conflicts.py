"""Keys of a recipe and the command line that cannot be meant together."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Key -> keys that say something about its value. With another value on the command line, those of the recipe are about
# something else. Keys of columns are not among them: a column that is missing is an error of its own.
BELONG_TO = {
    "train_file": (
        "validation_file", "test_file", "dataset_name", "dataset_config_name", "dataset_revision", "train_split_name",
        "validation_split_name", "test_split_name",
    ),
    "dataset_name": ("dataset_config_name", "dataset_revision", "train_file", "validation_file", "test_file"),
    "model_name_or_path": ("model_revision",),
    "bertscore_model": ("bertscore_layer",),
}  # fmt: skip
SOURCES = {"train_file": "dataset_name", "dataset_name": "train_file"}  # each replaces the other
REVISIONS = {"model_revision": "model_name_or_path", "dataset_revision": "dataset_name", "revision": "model"}
# The first of two keys leaves the second without effect
WITHOUT_EFFECT = (
    ("validation_file", "validation_fraction"),
    ("validation_split_name", "validation_fraction"),
    ("test_file", "test_fraction"),
    ("test_split_name", "test_fraction"),
)


def find_conflict(
    given: Mapping[str, Any], recipe: Mapping[str, Any], flags: Sequence[str], recipe_file: str
) -> str | None:
    """Return what is wrong with the keys as a whole: a flag replaces what other keys of the recipe belong to, a key
    leaves another without effect, or a revision is that of a folder.

    Args:
        given: every key that is set, with its value.
        recipe: keys and values of the recipe.
        flags: keys of the command line.
        recipe_file: for the message.
    """
    for key, others in BELONG_TO.items():
        is_named = key in recipe or SOURCES.get(key) in recipe
        if key not in flags or not is_named or _same(recipe.get(key), given[key]):
            continue
        if stale := [other for other in others if other in recipe and other not in flags]:
            old = ", ".join(f"`{other}`" for other in stale)
            found = f"`{key}` is given on top of {recipe_file}, whose {old} belong to what it replaces"
            return f"{found}: give new values, too, delete the lines, or add {_without(stale)}."
    for key, other in WITHOUT_EFFECT:
        if given.get(key) and other in given:
            return f"`{other}` has no effect with `{key}`: delete one of the lines, or add {_without([other])}."
    for key, of in REVISIONS.items():
        names = [given[of]] if isinstance(given.get(of), str) else given.get(of) or ()
        if given.get(key) and names and all(Path(name).is_dir() for name in names):
            return (
                f"`{key}` has no effect: `{of}` is a folder on this machine, which has no revisions: delete `{key}`."
            )
    return None


def _same(one: Any, other: Any) -> bool:
    """Return whether two values are equal, or paths of one file."""
    return one == other or (one is not None and Path(str(one)).resolve() == Path(str(other)).resolve())


def _without(keys: Sequence[str]) -> str:
    return f"`{' '.join(f'--no_{key}' for key in keys)}`"
