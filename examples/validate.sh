#!/usr/bin/env bash
# Asks the OpenTelemetry Collector, Jaeger and Tempo whether the files of all examples are theirs. Needs Docker.
set -euo pipefail
cd "$(dirname "$0")"
for file in */collector*.yaml; do
  echo "$file"
  # Each variable that has no default gets a value; where it leads is not looked at.
  variables=()
  for name in $(grep --only-matching --extended-regexp '\$\{env:[A-Z_]+\}' "$file" | tr -d '${}' | sort -u); do
    variables+=(--env "${name#env:}=http://localhost:4318")
  done
  docker run --rm --volume "$PWD:/etc/otel:ro" "${variables[@]}" \
    otel/opentelemetry-collector-contrib:0.165.0 validate --config "/etc/otel/$file"
done
docker run --rm --volume "$PWD:/etc/otel:ro" jaegertracing/jaeger:2.13.0 \
  validate --config /etc/otel/more_than_one_machine/jaeger-cassandra.yaml
docker run --rm --volume "$PWD:/etc/otel:ro" grafana/tempo:2.8.2 \
  -config.file=/etc/otel/more_than_one_machine/tempo.yaml -config.verify=true
