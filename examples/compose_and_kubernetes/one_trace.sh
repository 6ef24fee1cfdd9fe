#!/usr/bin/env bash
# Sends one request to the gateway, and asks Jaeger for its trace. Exits 1 unless that is one trace of seven spans and
# three services, each span below its caller. Needs curl and jq. Other addresses: API_GATEWAY_URL, JAEGER_URL.
set -euo pipefail

gateway=${API_GATEWAY_URL:-http://127.0.0.1:5000}
jaeger=${JAEGER_URL:-http://127.0.0.1:16686}
# How many seconds the trace may take to arrive: the services export every five.
patience=${PATIENCE:-30}

random_hex() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }
request() { curl --silent --noproxy '*' --max-time 30 "$@"; }

# "tops" have no caller in the trace: the gateway's span, whose caller is this script.
summary='.data[0] // {} | [.spans[]?.spanID] as $ids | {
  spans: ($ids | length),
  services: ([.processes[]?.serviceName] | unique),
  tops: [.spans[]? | select(all(.references[]; .spanID | IN($ids[]) | not)) | .operationName]
}'
expected='{"spans":7,"services":["api-gateway","llm-service","user-service"],"tops":["POST /api/query"]}'

trace=$(random_hex 16)
status=$(request "$gateway/api/query" --output /dev/null --write-out '%{http_code}' \
  -H 'content-type: application/json' -H "traceparent: 00-$trace-$(random_hex 8)-01" \
  -d '{"user_id": "user_1", "query": "What is a trace?"}') || true
echo "the gateway answered $status"
[ "$status" = 200 ]

deadline=$((SECONDS + patience))
until found=$(request "$jaeger/api/traces/$trace" | jq --compact-output "$summary"); [ "$found" = "$expected" ]; do
  if [ "$SECONDS" -ge "$deadline" ]; then
    printf 'expected %s\nbut got  %s\n' "$expected" "$found"
    exit 1
  fi
  sleep 0.5
done
echo "one trace: $found"
