"""schemathesis against the server's own OpenAPI description: nothing it thinks of makes the server fail or break it."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from serving_server import PATIENCE, running

from orthrus_mlx.serving.engine import Engine
from orthrus_mlx.serving.service import Limits, Service

pytest_plugins = ["serving_fixtures"]

PATHS = [
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/responses"),
    ("POST", "/v1/messages"),
    ("POST", "/v1/messages/count_tokens"),
    ("GET", "/v1/models/{name}"),
    ("GET", "/v1/models"),
    ("GET", "/health"),
    ("GET", "/metrics"),
    ("GET", "/"),
]
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
MODES = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]


def probe(server, method: str, path: str, examples: int) -> None:
    operation = schemathesis.openapi.from_url(f"{server.url}/openapi.json")[path][method]
    cases = st.one_of([operation.as_strategy(generation_mode=mode) for mode in MODES])

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(case=cases)
    def check(case):
        response = case.call(base_url=server.url, timeout=PATIENCE)
        # A deadline that passes is no failure of the server.
        if response.status_code != 504:
            case.validate_response(response, checks=CHECKS)

    check()
    assert server.client.get("/health").status_code == 200


def test_every_route_is_described(thinking):
    paths = thinking.client.get("/openapi.json").json()["paths"]
    assert {(method.upper(), path) for path, item in paths.items() for method in item} == set(PATHS)


@pytest.mark.parametrize("method, path", PATHS[:6], ids=[path for _, path in PATHS[:6]])
def test_a_few_requests_of_every_shape(scripted, method, path):
    probe(scripted("hello world"), method, path, 12)


@pytest.mark.slow
@pytest.mark.parametrize("method, path", PATHS, ids=[path for _, path in PATHS])
def test_many_requests_to_a_real_engine(thinking_model, method, path):
    service = Service(Engine(thinking_model[0]), thinking_model[1], ["tiny"], limits=Limits(seconds=0.5))
    with running(service) as server:
        probe(server, method, path, 50)
