"""Push an allow-list of files to the Hugging Face Hub in one commit."""

import logging
import re
import shlex
import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import CommitOperationAdd
from huggingface_hub.errors import (
    HfHubHTTPError,
    HTTPError,  # base of what the HTTP client raises when the Hub cannot be reached
    OfflineModeIsEnabled,
)

from utils.arguments import UserError
from utils.hub import connect, failure, refuse_public
from utils.json_files import json_text, read_json, read_yaml

logger = logging.getLogger(__name__)
WAITS = (5, 30)  # seconds before the second and the third try

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

ROOT = r"(?:file:/+|~?/|\\\\|[A-Za-z]:[\\/]+)(?=[^\s/\\])"  # start of an absolute path
PATH = re.compile(rf"""(?<='){ROOT}[^']*(?=')|(?<="){ROOT}[^"]*(?=")|(?<![^\s=:,(\[]){ROOT}[^\s"',)\]]*""")
TEXT_KEYS = re.compile(r"(?=.*(prompt|stop|label|template|tree|_token$))(?!.*_(file|path|dir)$)")


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
    output_dir, api = Path(output_dir), connect()
    files = published_files(output_dir)
    if not any(name.endswith(".safetensors") for name in files):
        raise UserError(f"`output_dir` {output_dir} has no weights to push: let a run finish there first.")
    waits = list(WAITS)
    while True:
        try:
            if "/" not in repo_id:
                repo_id = f"{api.whoami()['name']}/{repo_id}"
            api.create_repo(repo_id, private=private is not False, exist_ok=True)
            refuse_public(api, repo_id, private)
            if revision:
                api.create_branch(repo_id, branch=revision, exist_ok=True)
            # `upload_folder` would make several commits with hf_xet. The same operations twice would count as done.
            operations = [CommitOperationAdd(name, content) for name, content in files.items()]
            commit = api.create_commit(
                repo_id, operations, commit_message="Upload fine-tuned model", revision=revision
            )
            return commit.commit_url
        except (
            OSError,
            HTTPError,
            ValueError,
            RuntimeError,
            KeyError,
        ) as error:  # also an answer that is cut or empty
            if waits and may_pass(error):
                wait = waits.pop(0)
                logger.warning("the push to %s failed (%s): again in %d seconds", repo_id, failure(error), wait)
                time.sleep(wait)
                continue
            call = f"push({str(output_dir)!r}, {repo_id!r}, {private}, {revision!r})"
            again = shlex.join(["python", "-c", f"from utils.push import push; print({call})"])
            raise UserError(
                f"nothing is lost, the files are in {output_dir}, but the push to {repo_id} failed: {failure(error)}; "
                f"then push again: {again}"
            ) from error


def may_pass(error: Exception) -> bool:
    """Return whether the same request may succeed later: too many requests, or a fault of server or network."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in (408, 429, 500, 502, 503, 504)
    return isinstance(error, HTTPError) and not isinstance(error, OfflineModeIsEnabled)


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


def without_paths(value: Any, key: str = "") -> Any:
    """Return a copy with absolute paths reduced to their last part and Hub tokens masked, for publication. Texts that
    the model reads (prompts, labels, stop sequences; identified by key) are unchanged, since serving needs them."""
    if TEXT_KEYS.match(key):
        return value
    if isinstance(value, dict):
        return {k: without_paths(v, str(k)) for k, v in value.items()}
    if isinstance(value, list):
        return [without_paths(v, key) for v in value]
    if not isinstance(value, str):
        return value
    whole = key != "command" and re.fullmatch(ROOT + r".*", value)  # a path that is the whole value may contain spaces
    value = last_part(value) if whole else PATH.sub(lambda match: last_part(match.group()), value)
    return re.sub(r"\bhf_\w{20,}", "hf_***", value)


def last_part(path: str) -> str:
    """Return the file or folder name at the end of a path."""
    return re.split(r"[/\\]+", path.rstrip("/\\"))[-1]
