"""Push an allow-list of files to the Hugging Face Hub in one commit."""

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # base of what the HTTP client raises when the Hub cannot be reached
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from utils.arguments import UserError
from utils.json_files import json_text, read_json, read_yaml, without_paths

PUBLISHED = (
    "adapter_model.safetensors", "adapter_config.json",
    "model.safetensors", "model-?????-of-?????.safetensors", "model.safetensors.index.json",
    "linear.safetensors", "config.json", "generation_config.json",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
    "task.json", "recipe.yaml", "all_results.json", "report.md", "README.md",
    "baseline_comparison.csv", "analysis.json", "per_class.csv", "classification_report.txt",
)  # fmt: skip
WITH_PATHS = ("adapter_config.json", "config.json", "generation_config.json", "tokenizer_config.json", "task.json",
              "recipe.yaml", "all_results.json")  # fmt: skip


def check_push_access(repo_id: str, private: bool | None = None) -> str:
    """Check before hours of training that the push at the end can succeed.

    Args:
        repo_id: `name` or `owner/name`.
        private: as for `push`.

    Returns:
        the full `owner/name`.

    Raises:
        UserError: no valid token with write access to that owner, an unreachable Hub, or a repository that is already
            public although the run did not request that.
    """
    api, otherwise = HfApi(), "or set `push_to_hub: false`"
    try:
        who = api.whoami()
        owner = repo_id.split("/")[0] if "/" in repo_id else who["name"]
        full_id = f"{owner}/{repo_id.split('/')[-1]}" if repo_id.count("/") < 2 else repo_id
        reason = _no_right(who, owner, full_id)
        if reason:
            raise UserError(
                f"`hub_model_id` {full_id}: {reason}: set HF_TOKEN or run `hf auth login` with a write token for "
                f"{owner}, {otherwise}."
            )
        _refuse_public(api, full_id, private)
    except (HTTPError, OfflineModeIsEnabled, LocalTokenNotFoundError, HFValidationError) as error:
        raise UserError(f"`hub_model_id` {repo_id}: {_reason(error)}, {otherwise}.") from error
    return full_id


def why_not_loaded(error: Exception) -> str:
    """Return the whole message of a failed download as one line, and what to do about a gated repository: where its
    terms are accepted and how to log in is not in the first line."""
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if isinstance(error.__cause__ or error, GatedRepoError) or "gated" in text:
        text += "; accept its terms on its page, then set the environment variable HF_TOKEN or run `hf auth login`"
    return text


def push(output_dir: Path, repo_id: str, private: bool | None, revision: str | None = None) -> str:
    """Upload the files in `PUBLISHED` and the plots in one commit.

    Args:
        output_dir: folder of a finished run.
        repo_id: `name` or `owner/name`.
        private: a new repository is private unless this is False.
        revision: branch to commit to, created if necessary; defaults to the main branch.

    Returns:
        the URL of the commit, after the upload has finished.

    Raises:
        UserError: the Hub rejected the push or is unreachable. The files stay in `output_dir`.
    """
    output_dir, api = Path(output_dir), HfApi()
    files = published_files(output_dir)
    if not any(name.endswith(".safetensors") for name in files):
        raise UserError(f"`output_dir` {output_dir} has no weights to push: let a run finish there first.")
    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    try:
        if "/" not in repo_id:
            repo_id = f"{api.whoami()['name']}/{repo_id}"
        api.create_repo(repo_id, private=private is not False, exist_ok=True)
        _refuse_public(api, repo_id, private)
        if revision:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        # `upload_folder` would make several commits with hf_xet
        commit = api.create_commit(repo_id, operations, commit_message="Upload fine-tuned model", revision=revision)
    except (OSError, HTTPError, HFValidationError, RuntimeError, UserError) as error:  # RuntimeError: failed upload
        call = f"push('{output_dir}', '{repo_id}', {private}, {revision!r})"
        again = f'python -c "from utils.hub import push; print({call})"'
        raise UserError(
            f"nothing is lost, the files are in {output_dir}, but the push to {repo_id} failed: {_reason(error)}; "
            f"then push again: {again}"
        ) from error
    return commit.commit_url


def published_files(output_dir: Path) -> dict[str, Path | bytes]:
    """Map each path in the repository to the file to upload, or to its content if local paths had to be removed."""
    files: dict[str, Path | bytes] = {
        path.name: path
        for path in sorted(output_dir.iterdir())
        if path.is_file() and any(fnmatchcase(path.name, pattern) for pattern in PUBLISHED)
    }
    files |= {f"plots/{path.name}": path for path in sorted(output_dir.glob("plots/*.png"))}
    for name in files.keys() & set(WITH_PATHS):
        is_yaml = name.endswith(".yaml")
        value = read_yaml(output_dir / name) if is_yaml else read_json(output_dir / name)
        if (clean := without_paths(value)) != value:
            text = yaml.safe_dump(clean, sort_keys=False, allow_unicode=True) if is_yaml else None
            files[name] = (text or json_text(clean)).encode()
    task = read_json(output_dir / "task.json")
    if "report.md" in files:  # written for local use, with the command and base model as given
        report = text = (output_dir / "report.md").read_text(encoding="utf-8")
        for key in ("command", "base_model"):
            text = text.replace(task[key], without_paths(task[key], key)) if task.get(key) else text
        files["report.md"] = text.encode() if text != report else files["report.md"]
    return files


def _no_right(who: dict[str, Any], owner: str, repo_id: str) -> str | None:
    """Return why the token may not write there; None if it may, or if the Hub does not say."""
    token = who.get("auth", {}).get("accessToken", {})
    organizations = {org["name"]: org.get("roleInOrg") for org in who.get("orgs", [])}
    if owner != who["name"] and owner not in organizations:
        return f"the token belongs to {who['name']}, who is not a member of {owner}"
    if token.get("role") == "read" or organizations.get(owner) == "read":
        return "the token, or the role in that organization, is read-only"
    if token.get("role") == "fineGrained":
        scopes = token.get("fineGrained", {}).get("scoped", [])
        allowed = [s for s in scopes if "repo.write" in s["permissions"] and s["entity"]["name"] in (owner, repo_id)]
        return None if allowed else "the fine-grained token has no write permission there"
    return None


def _refuse_public(api: HfApi, repo_id: str, private: bool | None) -> None:
    try:
        is_public = not api.model_info(repo_id).private
    except RepositoryNotFoundError:
        return
    if is_public and private is not False:
        raise UserError(
            f"`hub_model_id` {repo_id} is a public repository: set `hub_private_repo: false` to publish there, or "
            "choose another name"
        )


def _reason(error: Exception) -> str:
    """Return what went wrong and what to do about it, without the traceback of the HTTP client."""
    if isinstance(error, UserError | HFValidationError):
        return str(error).splitlines()[0].rstrip(".")
    if isinstance(error, LocalTokenNotFoundError):
        return "there is no Hugging Face token: set HF_TOKEN or run `hf auth login` with a write token"
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if status == 401:
        return "the Hub rejects the token: set HF_TOKEN or run `hf auth login` with a valid write token"
    if status in (403, 404):
        return f"the Hub refused ({status}): set HF_TOKEN to a token with write access to this repository"
    if status is None and isinstance(error, HTTPError | OfflineModeIsEnabled):
        return "the Hub cannot be reached: check the network, HF_ENDPOINT and HF_HUB_OFFLINE"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
