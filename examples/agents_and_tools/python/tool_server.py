"""The tool server in Python. The SDK of MCP makes the spans, and we export them."""

import os
import signal
import sys

from mcp.server import MCPServer
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

WEATHER = {"Paris": "18 °C and rain", "Oslo": "2 °C and snow"}

# The provider flushes the last spans when Python exits, and SIGTERM alone would end the process without that.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
provider = TracerProvider(resource=Resource.create({"service.name": "tool-server"}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)

mcp = MCPServer("weather")


@mcp.tool()
def get_weather(city: str) -> str:
    """The weather in a city"""
    if city not in WEATHER:
        raise ValueError("no weather for this city")
    return WEATHER[city]


port = os.environ.get("TOOL_SERVER_PORT")
if port:
    mcp.run("streamable-http", port=int(port))
else:
    mcp.run("stdio")
