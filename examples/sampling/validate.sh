#!/usr/bin/env bash
# Asks the OpenTelemetry Collector itself whether the configurations of the guides are such. Needs Docker.
set -euo pipefail
cd "$(dirname "$0")/.."
for folder in sampling other_backends; do
  docker run --rm --volume "$PWD/$folder:/etc/otel:ro" --env BACKEND_ENDPOINT=http://localhost:4318 \
    --env PHOENIX_ENDPOINT=http://localhost:6006 --env HONEYHIVE_ENDPOINT=https://localhost/opentelemetry --env HH_API_KEY=none \
    otel/opentelemetry-collector-contrib:0.135.0 validate --config /etc/otel/collector.yaml
done
