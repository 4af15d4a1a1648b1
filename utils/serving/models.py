"""The models that the app has loaded: how a request names one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from utils.arguments import UserError

CLASSIFIERS = ("classification", "hierarchical")


class HasTask(Protocol):
    @property
    def task(self) -> dict[str, Any]: ...


Model = TypeVar("Model", bound=HasTask)


class UnknownModel(Exception):
    """No model that is loaded does what was asked for."""


def name_models(models: list[str]) -> list[str]:
    """Return a name for each model: the last part of its path, and as many parts before it as tell it from others.

    Args:
        models: folders or Hub repositories.

    Raises:
        UserError: a model is given twice.
    """
    parts = [Path(model).resolve().parts if Path(model).is_dir() else Path(model).parts for model in models]
    for place, model in enumerate(models):
        if parts[place] in parts[:place]:
            raise UserError(f"`model` {model} is given twice: name each model once.")
    names = []
    for own in parts:
        others = [other for other in parts if other != own]
        length = next((n for n in range(1, len(own) + 1) if all(own[-n:] != other[-n:] for other in others)), len(own))
        names.append("/".join(own[-length:]).replace("//", "/"))
    return names


def find_model(models: Mapping[str, Model], tasks: tuple[str, ...], name: str | None) -> Model:
    """Return the model of this name, or without a name the first one of the first of these tasks that has one.

    Args:
        models: name -> loaded model.
        tasks: tasks that fit the request, the preferred one first.
        name: as in `name_models`.

    Raises:
        UnknownModel: no such model is loaded. The message does not repeat the name, which comes from a request.
    """
    fitting = {own: model for task in tasks for own, model in models.items() if model.task["task"] == task}
    if not fitting:
        asked = " or ".join(tasks)
        raise UnknownModel(f"no model of task {asked} is loaded: start app.py with the `output_dir` of one")
    if name is None:
        return next(iter(fitting.values()))
    if name not in fitting:
        raise UnknownModel(
            f"`model` is not loaded for this request: give one of {', '.join(fitting)}, or leave it out"
        )
    return fitting[name]
