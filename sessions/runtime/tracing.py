"""Traces by OpenTelemetry, of both services together: off, unless the extra `otel` is there and OTEL_* says where to.

The standard variables choose: OTEL_EXPORTER_OTLP_ENDPOINT (or …_TRACES_ENDPOINT) turns them on, OTEL_TRACES_SAMPLER and
the others do what OpenTelemetry says of them. A trace goes on from the `traceparent` of whoever asks (W3C), and on to
session-storage. Spans hold sizes and routes, and nothing of sessions, tokens or content.
"""

import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final

from sessions import __version__
from sessions.runtime.settings import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_EXPORTER: Final = "opentelemetry.exporter.otlp.proto.http"
_NO_SPAN: Final = nullcontext()
_NOT_RECEIVED: Final = nullcontext(lambda _route, _status: None)


class _State:
    """The tracer of this process; None while traces are off."""

    tracer: "Tracer | None" = None


def start(service: str) -> Callable[[], None]:
    """Turn traces on, if the environment asks for them; call what this gives at the end, so that none is lost.

    Raises:
        ConfigurationError: they are asked for, and the extra `otel` is not installed.
    """
    endpoint = next((name for name in _ENDPOINTS if os.environ.get(name)), None)
    if endpoint is None or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return lambda: None
    try:
        found = importlib.util.find_spec(_EXPORTER)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise ConfigurationError(endpoint, "asks for traces, for which lucid-sessions[otel] has to be installed")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": service, "service.version": __version__}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _State.tracer = provider.get_tracer("sessions", __version__)

    def stop() -> None:
        _State.tracer = None
        provider.shutdown()

    return stop


def span(
    name: str, facts: Mapping[str, str | int] | None = None, *, of: Sequence[Any] | None = None
) -> AbstractContextManager[None]:
    """A span of what is done meanwhile; an exception marks it as failed.

    `of` are the `here()` of those for whom it is done, where that is not who does it: it belongs to the first's trace.
    """
    tracer = _State.tracer
    return _NO_SPAN if tracer is None else _span(tracer, name, facts, of)


@contextmanager
def _span(
    tracer: "Tracer", name: str, facts: Mapping[str, str | int] | None, of: Sequence[Any] | None
) -> Iterator[None]:
    from opentelemetry import trace

    contexts = [context for context in of or () if context is not None]
    others = [trace.get_current_span(context).get_span_context() for context in contexts[1:]]
    links = [trace.Link(other) for other in others if other.is_valid]
    parent = contexts[0] if contexts else None
    with tracer.start_as_current_span(name, parent, attributes=facts, links=links):
        yield


def received(headers: Sequence[tuple[bytes, bytes]], method: str) -> AbstractContextManager[Callable[[str, int], None]]:
    """The span of a request; what this gives is told its route and status."""
    tracer = _State.tracer
    return _NOT_RECEIVED if tracer is None else _received(tracer, headers, method)


@contextmanager
def _received(
    tracer: "Tracer", headers: Sequence[tuple[bytes, bytes]], method: str
) -> Iterator[Callable[[str, int], None]]:
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    sent = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers if name.startswith(b"trace")}
    parent = TraceContextTextMapPropagator().extract(sent)
    with tracer.start_as_current_span("receive", parent, SpanKind.SERVER) as current:

        def tell(route: str, status: int) -> None:
            current.set_attributes(
                {"http.request.method": method, "http.route": route, "http.response.status_code": status}
            )

        yield tell


def here() -> Any:
    """Where we are, for `span`; None while traces are off."""
    if _State.tracer is None:
        return None
    from opentelemetry import context

    return context.get_current()


def headers() -> dict[str, str]:
    """What a request to the other service carries, so that its spans are of the same trace."""
    sent: dict[str, str] = {}
    if _State.tracer is not None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        TraceContextTextMapPropagator().inject(sent)
    return sent
