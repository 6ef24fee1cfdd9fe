#!/usr/bin/env bash
# Asks the OpenTelemetry Collector itself whether its configuration is one. Needs Docker.
set -euo pipefail
cd "$(dirname "$0")"
docker run --rm --volume "$PWD:/etc/otel:ro" --env BACKEND_ENDPOINT=http://localhost:4318 \
  otel/opentelemetry-collector-contrib:0.135.0 validate --config /etc/otel/collector.yaml
