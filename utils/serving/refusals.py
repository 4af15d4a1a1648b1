"""What a client is told of a request that gets no answer: status and reason, and nothing of the request."""

import asyncio
from typing import Any

from fastapi import HTTPException
from fastapi.exceptions import RequestValidationError

from utils.arguments import UserError
from utils.serving.batching import Busy
from utils.serving.guard import log_defect
from utils.serving.models import UnknownModel
from utils.serving.openai_backend import Unavailable

REFUSED = (RequestValidationError, UserError, Busy, Unavailable, UnknownModel, asyncio.TimeoutError)
MAX_ERRORS, MAX_NAME = 20, 100  # of an answer with status 422, and characters of a name in it


def status_and_detail(error: Exception) -> tuple[int, Any]:
    """Return the HTTP status and the reason of an exception. One that is none of `REFUSED` is a defect: it is logged,
    and its message, which may hold a text, is not told."""
    if isinstance(error, HTTPException):
        return error.status_code, error.detail
    if isinstance(error, RequestValidationError):
        wrong = error.errors()[:MAX_ERRORS]
        return 422, [{"type": e["type"], "loc": [_name(part) for part in e["loc"]], "msg": e["msg"]} for e in wrong]
    if isinstance(error, asyncio.TimeoutError):
        return 504, "the time limit is exceeded, try again later"
    statuses = {Busy: 429, Unavailable: 503, UnknownModel: 404, UserError: 422}
    for kind, status in statuses.items():
        if isinstance(error, kind):
            return status, str(error)
    log_defect(error)
    return 500, "internal error"


def _name(part: str | int) -> str | int:
    """Return a part of a place in a request as it can be sent: a key that the client made up may have any length, and
    characters that UTF-8 cannot write."""
    return part if isinstance(part, int) else part[:MAX_NAME].encode("utf-8", "replace").decode()
