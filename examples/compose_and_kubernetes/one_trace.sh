#!/usr/bin/env bash
# Sends one request to the gateway and compares its trace with one_trace.trace. Reads the
# spans from Jaeger or from anything else that has its query API. Exits 1 when the trace
# differs. Other addresses: API_GATEWAY_URL, JAEGER_URL.
set -euo pipefail
cd "$(dirname "$0")"

# In a clone, the lab needn't be installed.
command -v lab >/dev/null || lab() { cargo run --quiet --locked --bin lab -- "$@"; }

# The services export every five seconds.
lab expect one_trace.trace \
  --jaeger "${JAEGER_URL:-http://127.0.0.1:16686}" \
  --request "POST ${API_GATEWAY_URL:-http://127.0.0.1:5000}/api/query" --status 200 \
  --body '{"user_id": "user_1", "query": "What is a trace?"}' \
  --settle "${SETTLE:-6s}" --timeout "${TIMEOUT:-30s}"
