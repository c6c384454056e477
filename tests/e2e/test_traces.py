"""Traces by OpenTelemetry: one chunk is one trace through both services, as a receiver of OTLP sees it."""

import gzip
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from scripts.devstack import process, services
from scripts.devstack.process import ROOT, Process, wait_until
from scripts.devstack.services import Service
from scripts.devstack.stack import Stack
from tests.e2e.conftest import session_name

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@dataclass
class Seen:
    """A span, with ids in hex."""

    service: str
    name: str
    trace: str
    span: str
    parent: str
    facts: dict[str, str | int]


@dataclass
class Receiver:
    """What OTLP was posted."""

    url: str = ""
    spans: list[Seen] = field(default_factory=list)
    raw: bytes = b""

    def take(self, body: bytes) -> None:
        self.raw += body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = {one.key: one.value.string_value for one in resource.resource.attributes}["service.name"]
            for scope in resource.scope_spans:
                for span in scope.spans:
                    facts = {one.key: one.value.string_value or one.value.int_value for one in span.attributes}
                    ids = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
                    self.spans.append(Seen(service, span.name, *ids, facts))

    def of(self, trace: str) -> dict[tuple[str, str], Seen]:
        """The spans of a trace, by service and name."""
        return {(span.service, span.name): span for span in list(self.spans) if span.trace == trace}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """A receiver of OTLP over HTTP."""
    one = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.path == "/v1/traces"
            one.take(gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        one.url = f"http://127.0.0.1:{server.server_port}"
        yield one
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def processor_url(stack: Stack, receiver: Receiver) -> Iterator[str]:
    """One more of each service on the shared stack's database, which tell their spans."""
    ports = {service: str(process.free_port()) for service in services.SERVICES}
    tracing = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_BSP_SCHEDULE_DELAY": "200"}
    further = {
        "storage": {"ANCHORING": "off"},
        "processor": {"SPOOL": "off", "STORAGE_URL": f"http://127.0.0.1:{ports['storage']}"},
    }
    running: list[Process] = []
    try:
        for service in services.SERVICES:
            log = stack.folder / f"traced-{service}.log"
            own = {**stack.env[service], **tracing, **further[service], "PORT": ports[service]}
            running.append(services.launch(service, own, stack.mongod.marks, log))
        for service, one in zip(services.SERVICES, running, strict=True):
            services.wait_ready(service, one, int(ports[service]), stack.folder / f"traced-{service}.log")
        yield f"http://127.0.0.1:{ports['processor']}"
    finally:
        for one in running:
            one.stop()


def test_a_chunk_is_one_trace_through_both_services(stack: Stack, processor_url: str, receiver: Receiver) -> None:
    name = session_name("traced")
    headers = {
        "authorization": f"Bearer {stack.tokens['record']}",
        "traceparent": f"00-{TRACE}-{PARENT}-01",
    }
    path = f"/api/v1/sessions/{name}/chunks/0"
    with httpx.Client(base_url=processor_url, headers=headers, trust_env=False, timeout=60) as http:
        assert http.put(path, content=b"what nobody may read" * 10).status_code == 201
    # The session is opened by a request of its own, so session-storage has more than one `receive`.
    wanted = {("chunk-processor", one) for one in ("receive", "seal", "submit")}
    wanted |= {("session-storage", one) for one in ("receive", "store")}
    assert wait_until(lambda: receiver.of(TRACE).keys() == wanted, 30), receiver.spans
    seen = receiver.of(TRACE)
    receive, submit, store = (
        seen["chunk-processor", "receive"],
        seen["chunk-processor", "submit"],
        seen["session-storage", "store"],
    )
    assert receive.parent == PARENT
    assert seen["chunk-processor", "seal"].parent == submit.parent == receive.span
    (posted,) = [one for one in receiver.spans if one.span == store.parent]
    assert (posted.service, posted.name, posted.parent) == ("session-storage", "receive", submit.span)
    assert receive.facts == {
        "http.request.method": "PUT",
        "http.route": "/api/v1/sessions/{session_id}/chunks/{index}",
        "http.response.status_code": 201,
    }
    assert (seen["chunk-processor", "seal"].facts, store.facts) == ({"chunk.bytes": 200}, {"batch.envelopes": 1})
    for secret in (name, stack.tokens["record"], "what nobody may read"):
        assert secret.encode() not in receiver.raw


def test_a_request_without_a_traceparent_begins_a_trace_of_its_own(processor_url: str, receiver: Receiver) -> None:
    answer = httpx.get(f"{processor_url}/api/v1/sessions/x", trust_env=False)
    assert answer.status_code == 401
    assert wait_until(lambda: any(one.facts.get("http.response.status_code") == 401 for one in receiver.spans), 30)
    (refused,) = [one for one in receiver.spans if one.facts.get("http.response.status_code") == 401]
    assert (refused.parent, refused.trace != TRACE) == ("", True)


@pytest.mark.parametrize("service", services.SERVICES)
def test_asked_for_without_the_extra_the_service_does_not_start(
    stack: Stack, service: Service, receiver: Receiver
) -> None:
    hidden = "import sys; sys.modules['opentelemetry.exporter.otlp.proto.http'] = None\n"
    run = f"from sessions.{service}.main import main; sys.exit(main())"
    passed_on = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LUCID_TEST_RUN")}
    own = {**passed_on, **stack.env[service], "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "SPOOL": "off"}
    done = subprocess.run(
        [sys.executable, "-c", hidden + run], env=own, capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 78
    assert re.search(r"OTEL_EXPORTER_OTLP_ENDPOINT.*lucid-sessions\[otel\]", done.stdout + done.stderr)
