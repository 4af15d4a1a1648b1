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


def status_and_detail(error: Exception) -> tuple[int, Any]:
    """Return the HTTP status and the reason of an exception. One that is none of `REFUSED` is a defect: it is logged,
    and its message, which may hold a text, is not told."""
    if isinstance(error, HTTPException):
        return error.status_code, error.detail
    if isinstance(error, RequestValidationError):
        return 422, [{key: e[key] for key in ("type", "loc", "msg")} for e in error.errors()]
    if isinstance(error, asyncio.TimeoutError):
        return 504, "the time limit is exceeded, try again later"
    statuses = {Busy: 429, Unavailable: 503, UnknownModel: 404, UserError: 422}
    for kind, status in statuses.items():
        if isinstance(error, kind):
            return status, str(error)
    log_defect(error)
    return 500, "internal error"
