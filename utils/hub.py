"""Access to the Hugging Face Hub: may a run push at its end, and why could something not be loaded or pushed."""

from typing import Any

from huggingface_hub import HfApi, get_session
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

PATIENCE = 120.0  # seconds to wait for an answer; the Hub checks a large commit for about a minute


def connect() -> HfApi:
    """Return the API, with an end to each wait: by default it waits for ever for a server that does not answer."""
    get_session().timeout = PATIENCE
    return HfApi()


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
    api, otherwise = connect(), "or set `push_to_hub: false`"
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
        refuse_public(api, full_id, private)
    except (HTTPError, OfflineModeIsEnabled, LocalTokenNotFoundError, HFValidationError) as error:
        raise UserError(f"`hub_model_id` {repo_id}: {failure(error)}, {otherwise}.") from error
    return full_id


def why_not_loaded(error: Exception) -> str:
    """Return the whole message of a failed download as one line, and what to do about a gated repository: where its
    terms are accepted and how to log in is not in the first line."""
    text = " ".join(str(error).split()).split(" Model type should be one of ")[0]  # some 200 of them
    text = text.rstrip(".") or type(error).__name__
    if isinstance(error.__cause__ or error, GatedRepoError) or "gated" in text:
        text += "; accept its terms on its page, then set the environment variable HF_TOKEN or run `hf auth login`"
    return text


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


def refuse_public(api: HfApi, repo_id: str, private: bool | None) -> None:
    """Raise a UserError for a repository that is already public although the run did not request that."""
    try:
        is_public = not api.model_info(repo_id).private
    except RepositoryNotFoundError:
        return
    if is_public and private is not False:
        raise UserError(
            f"`hub_model_id` {repo_id} is a public repository: set `hub_private_repo: false` to publish there, or "
            "choose another name"
        )


def failure(error: Exception) -> str:
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
    if status and (status == 429 or status >= 500):
        return f"the Hub is busy or has a fault ({status}): wait a while"
    if status is None and isinstance(error, HTTPError | OfflineModeIsEnabled):
        return "the Hub cannot be reached: check the network, HF_ENDPOINT and HF_HUB_OFFLINE"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
