#!/usr/bin/env bash
# Sends requests to the running services and compares their answers, and their traces with
# queries.trace. Exits 1 when anything is wrong.
#
# Needs curl, the three services, and the lab as their backend: see README.md. Other
# addresses: API_GATEWAY_URL, USER_SERVICE_URL, LLM_SERVICE_URL, LAB_URL.
set -euo pipefail
cd "$(dirname "$0")"

gateway=${API_GATEWAY_URL:-http://127.0.0.1:5000}
user_service=${USER_SERVICE_URL:-http://127.0.0.1:5001}
llm_service=${LLM_SERVICE_URL:-http://127.0.0.1:5002}
site=${LAB_URL:-http://127.0.0.1:3000}

# In a clone, the lab needn't be installed.
command -v lab >/dev/null || lab() { cargo run --quiet --locked --bin lab -- "$@"; }

failures=0
check() { # check WHAT COMMAND...
  local output
  if output=$("${@:2}"); then
    echo "ok      $1"
  else
    failures=$((failures + 1))
    printf 'FAILED  %s\n%s\n' "$1" "$output"
  fi
}

is_healthy() { # is_healthy SERVICE
  curl --silent --show-error --fail --noproxy '*' --max-time 30 "$1/health" 2>&1
}

# Compares the trace of one query. The services export every five seconds, unless
# OTEL_BSP_SCHEDULE_DELAY says otherwise.
trace() { # trace NAME STATUS USER_ID
  lab expect queries.trace "$1" --site "$site" \
    --request "POST $gateway/api/query" --status "$2" \
    --body "{\"user_id\": \"$3\", \"query\": \"What is a trace?\"}" \
    --settle "${SETTLE:-6s}" --timeout "${TIMEOUT:-20s}"
}

for service in "$gateway" "$user_service" "$llm_service"; do
  check "$service is healthy" is_healthy "$service"
done
check "the request is one trace through three services" trace answered 200 user_1
check "the refusal is on the trace" trace refused 403 stranger

if [ "$failures" -gt 0 ]; then
  echo "$failures checks failed"
  exit 1
fi
echo "all checks passed"
