"""Spans of work that is done for several requests at once, and what traces cost while they are off: nothing."""

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from sessions.runtime import tracing


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing._State.tracer = provider.get_tracer("test")
    yield exporter
    tracing._State.tracer = None


@pytest.mark.parametrize("environment", [{}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"}])
def test_off(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    stop = tracing.start("service")
    with tracing.span("work", of=[tracing.here()]), tracing.received([], "GET") as tell:
        tell("/", 200)
        assert (tracing.here(), tracing.headers()) == (None, {})
    stop()


def test_what_is_done_for_several_is_in_the_firsts_trace_and_linked_to_the_others(spans: InMemorySpanExporter) -> None:
    places = []
    for _ in range(3):
        with tracing.received([], "PUT"):
            places.append(tracing.here())
    with tracing.span("submit", {"batch.envelopes": 4}, of=[*places, None]):
        sent = tracing.headers()["traceparent"]
    *asked, submit = spans.get_finished_spans()
    assert submit.parent is not None
    assert submit.parent.span_id == asked[0].context.span_id
    assert [link.context.trace_id for link in submit.links] == [one.context.trace_id for one in asked[1:]]
    assert sent.split("-")[1] == format(asked[0].context.trace_id, "032x")


def test_what_nobody_waits_for_begins_a_trace_and_links_to_nothing(spans: InMemorySpanExporter) -> None:
    nowhere = tracing.here()  # of a task in the background
    with tracing.span("submit", of=[nowhere, nowhere]):
        pass
    (submit,) = spans.get_finished_spans()
    assert (submit.parent, list(submit.links)) == (None, [])


def test_an_exception_marks_the_span(spans: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="no"), tracing.span("seal"):
        raise ValueError("no")
    (span,) = spans.get_finished_spans()
    assert not span.status.is_ok
