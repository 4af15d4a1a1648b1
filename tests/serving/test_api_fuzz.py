"""Generated requests on the whole OpenAPI document, right ones and wrong ones: whatever comes, no 5xx."""

import pytest
from test_app import runs, serving  # noqa: F401  a fixture

schemathesis = pytest.importorskip("schemathesis")  # which needs Python 3.11
from hypothesis import HealthCheck, Phase, given, settings  # noqa: E402
from schemathesis.generation import GenerationMode  # noqa: E402


@pytest.fixture(scope="module")
def url(runs):  # noqa: F811
    with serving(list(runs.values())) as url:
        yield url


# not through schemathesis' pytest plugin, which does not know pytest 9.2 yet
@pytest.mark.parametrize("mode", GenerationMode)
def test_no_request_is_a_server_error(url, mode):
    asked: dict[str, list[int]] = {}

    def check(case: "schemathesis.Case") -> None:
        status = case.call(timeout=60).status_code
        asked.setdefault(case.path, []).append(status)
        assert status < 500, f"{case.method} {case.path}: {case.body!r:.300}"

    for found in schemathesis.openapi.from_url(f"{url}/openapi.json").get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and operation.method == "get":
            continue  # it takes nothing that could be wrong
        quiet = settings(
            max_examples=10, deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        quiet(given(operation.as_strategy(generation_mode=mode))(check))()
    assert {"/generate", "/classify", "/summarize"} <= set(asked)
    if mode is GenerationMode.NEGATIVE:
        assert all(422 in asked[path] for path in ("/generate", "/classify", "/summarize"))
