"""user-service in Python. OTEL_* variables set where its spans go, and which."""

import logging
import os
import signal
import sys

import requests
from flask import Flask, request
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

try:
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
except Exception:
    # A variable that can't be used costs the spans, not the service.
    logging.exception("nothing is exported")
tracer = trace.get_tracer("user_service")

app = Flask(__name__)
# SERVER spans read the incoming headers, CLIENT spans write the outgoing ones.
FlaskInstrumentor().instrument_app(app, excluded_urls="health")
RequestsInstrumentor().instrument()

llm_service = os.environ.get("LLM_SERVICE_URL", "http://127.0.0.1:5002")


@app.post("/process")
def process():
    query = request.get_json()
    with tracer.start_as_current_span("validate_user") as span:
        valid = query["user_id"].startswith("user_")
        span.set_attribute("user.valid", valid)
    if not valid:
        return {"error": "Invalid user"}, 403
    prompt = {"user_id": query["user_id"], "prompt": query["query"]}
    try:
        answer = requests.post(f"{llm_service}/generate", json=prompt, timeout=9)
        answer.raise_for_status()
    except requests.RequestException:
        return {"error": "A service behind this one failed"}, 502
    return answer.json()


@app.get("/health")
def health():
    return "ok"


if __name__ == "__main__":
    # Without this, SIGTERM ends Python before the provider has flushed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    host, port = os.environ.get("USER_SERVICE_ADDR", "127.0.0.1:5001").split(":")
    app.run(host, int(port))
