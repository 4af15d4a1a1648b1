"""The licences that the base model and the data of a run state on their cards."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import RepoCard, hf_hub_download
from huggingface_hub.errors import HFValidationError, HTTPError


def stated_licenses(task: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the licences of `base_model` and `data`; None if a card states none or cannot be read.

    Args:
        task: the content of `task.json`.
    """
    data = task.get("data", {})
    return {
        "base_model": stated_license(task.get("base_model"), "model", task.get("base_model_revision")),
        "data": stated_license(data.get("dataset_name"), "dataset", data.get("dataset_revision")),
    }


def stated_license(name: str | None, repo_type: str, revision: str | None = None) -> str | None:
    """Return the licence that the card of a model or data set states; None if it states none or cannot be read.

    Args:
        name: folder or Hub id.
        repo_type: `model` or `dataset`.
        revision: commit, tag or branch on the Hub.
    """
    if not name:
        return None
    try:
        path = Path(name) / "README.md"
        if not Path(name).is_dir():
            path = Path(hf_hub_download(name, "README.md", repo_type=repo_type, revision=revision))
        found = RepoCard(path.read_text(encoding="utf-8"), ignore_metadata_errors=True).data.get("license")
    except (OSError, ValueError, HTTPError, HFValidationError):
        return None
    return ", ".join(map(str, found)) if isinstance(found, list) else found
