"""Calls get_weather for a city: of the server at TOOL_SERVER_URL, or of the command in the other arguments, as a child process."""

import asyncio
import os
import sys

from mcp import StdioServerParameters
from mcp.client import Client
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

provider = TracerProvider(resource=Resource.create({"service.name": "python-agent"}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)


async def call(city: str, command: list[str]) -> None:
    server = os.environ.get("TOOL_SERVER_URL")
    if not server:
        # The SDK hands a child only a few variables, and none of OpenTelemetry's.
        env = {key: value for key, value in os.environ.items() if key.startswith("OTEL_")}
        server = StdioServerParameters(command=command[0], args=command[1:], env=env)
    async with Client(server) as client:
        with trace.get_tracer("agent").start_as_current_span("invoke_agent weather"):
            result = await client.call_tool("get_weather", {"city": city})
            print(result.content[0].text)


asyncio.run(call(sys.argv[1], sys.argv[2:]))
provider.shutdown()
