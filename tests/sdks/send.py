"""Sends one trace and its log records with OpenTelemetry's Python SDK, and prints its id.

The variables of the OpenTelemetry specification say where to and how: OTEL_EXPORTER_OTLP_ENDPOINT,
OTEL_EXPORTER_OTLP_PROTOCOL (http/protobuf or grpc), OTEL_EXPORTER_OTLP_COMPRESSION (gzip). send.mjs sends the same
trace.
"""

import importlib
import logging
import os

from opentelemetry import trace
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode, TraceFlags

# Of the variables, this one alone is not read by the exporters: each protocol is a package of its own.
package = {"http/protobuf": "http", "grpc": "grpc"}[os.environ["OTEL_EXPORTER_OTLP_PROTOCOL"]]
exporter = importlib.import_module(f"opentelemetry.exporter.otlp.proto.{package}.trace_exporter")
log_exporter = importlib.import_module(f"opentelemetry.exporter.otlp.proto.{package}._log_exporter")

resource = Resource.create({"service.name": "python-service", "service.version": "1.2.3"})
logs = LoggerProvider(resource=resource)
logs.add_log_record_processor(BatchLogRecordProcessor(log_exporter.OTLPLogExporter()))
logger = logging.getLogger("orders")
logger.addHandler(LoggingHandler(logger_provider=logs))

provider = TracerProvider(resource=resource)
provider.add_span_processor(BatchSpanProcessor(exporter.OTLPSpanExporter()))
tracer = provider.get_tracer("send.py", "0.1.0")

# A span of another trace, which nobody exports: the example of the W3C's Trace Context.
elsewhere = SpanContext(
    trace_id=0x4BF92F3577B34DA6A3CE929D0E0E4736,
    span_id=0x00F067AA0BA902B7,
    is_remote=True,
    trace_flags=TraceFlags(TraceFlags.SAMPLED),
)

attributes = {
    "http.request.method": "GET",
    "http.response.status_code": 500,
    "order.gift": True,
    "order.number": 2**53 + 1,  # the first integer that a double cannot hold
    "order.total": 19.5,
    "order.items": ["tea", "cups"],
}
with tracer.start_as_current_span("GET /orders/{id}", kind=SpanKind.SERVER, attributes=attributes) as server:
    with tracer.start_as_current_span("charge card") as charge:
        charge.add_event("retry", {"attempt": 2})
        charge.record_exception(ValueError("card expired"))
        charge.set_status(StatusCode.ERROR, "the card was declined")
        try:
            raise ValueError("card expired")
        except ValueError:
            logger.exception("order %d was not charged", 7)
    link = Link(elsewhere, {"reason": "first attempt"})
    with tracer.start_as_current_span("publish order", kind=SpanKind.PRODUCER, links=[link]):
        pass

logger.warning("logged outside of a span")

logs.shutdown()
provider.shutdown()  # sends what is still in the batch
print(trace.format_trace_id(server.get_span_context().trace_id))
