#!/usr/bin/env bash
# Asks the running services, and checks what they answer and the trace they leave. Exits 1 when anything is wrong.
#
# Needs curl, the three services, and the lab as their backend: `cargo run` in the root of the repository starts
# all of it. Other addresses: API_GATEWAY_URL, USER_SERVICE_URL, LLM_SERVICE_URL, LAB_URL.
set -euo pipefail

gateway=${API_GATEWAY_URL:-http://127.0.0.1:5000}
user_service=${USER_SERVICE_URL:-http://127.0.0.1:5001}
llm_service=${LLM_SERVICE_URL:-http://127.0.0.1:5002}
lab=${LAB_URL:-http://127.0.0.1:3000}

# How many seconds a trace may take to arrive: the services export every five unless told otherwise.
patience=${PATIENCE:-20}

failures=0
check() { # check WHAT EXPECTED ACTUAL
  if [ "$2" = "$3" ]; then
    echo "ok      $1"
  else
    failures=$((failures + 1))
    printf 'FAILED  %s\n--- expected\n%s\n--- but got\n%s\n' "$1" "$2" "$3"
  fi
}

random_hex() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }

request() { curl --silent --noproxy '*' --max-time 30 "$@" || true; }

# The body and the status of one query, as USER_ID within trace TRACE_ID.
query() { # query USER_ID TRACE_ID PARENT_ID
  request "$gateway/api/query" --write-out ' %{http_code}' \
    -H 'content-type: application/json' -H "traceparent: 00-$2-$3-01" \
    -d "{\"user_id\": \"$1\", \"query\": \"What is a trace?\"}"
}

# The tree of a trace, without what differs from run to run.
tree() { # tree TRACE_ID
  request "$lab/traces/$1.txt" |
    sed -E 's/ +[0-9]+\.[0-9]+ (ms|µs|s)//; s/([^ │]) {2,}/\1 /g; s/ $//; s/chat .* (INTERNAL|CLIENT)/chat MODEL/'
}

# Waits until the trace is as it should be, or patience ends; then compares once more, to say what is different.
check_tree() { # check_tree WHAT TRACE_ID EXPECTED
  local deadline=$((SECONDS + patience)) actual
  until actual=$(tree "$2"); [ "$actual" = "$3" ] || [ "$SECONDS" -ge "$deadline" ]; do
    sleep 0.2
  done
  check "$1" "$3" "$actual"
}

for service in "$gateway" "$user_service" "$llm_service"; do
  check "$service is healthy" 200 "$(request --output /dev/null --write-out '%{http_code}' "$service/health")"
done

trace=$(random_hex 16) parent=$(random_hex 8)
answer=$(query user_1 "$trace" "$parent")
check "a valid user is answered 200" 200 "${answer##* }"
check_tree "the request is one trace through three services" "$trace" \
"POST /api/query SERVER api-gateway 200, orphan: parent $parent is not here
└─ POST /process CLIENT api-gateway 200
   └─ POST /process SERVER user-service 200
      ├─ validate_user INTERNAL user-service
      └─ POST /generate CLIENT user-service 200
         └─ POST /generate SERVER llm-service 200
            └─ chat MODEL llm-service"

trace=$(random_hex 16) parent=$(random_hex 8)
check "an unknown user is answered 403" '{"error":"Invalid user"} 403' "$(query stranger "$trace" "$parent")"
check_tree "the refusal is on the trace" "$trace" \
"POST /api/query SERVER api-gateway 403, orphan: parent $parent is not here
└─ POST /process CLIENT api-gateway 403, error
   └─ POST /process SERVER user-service 403
      └─ validate_user INTERNAL user-service error user_service::InvalidUser: Invalid user"

if [ "$failures" -gt 0 ]; then
  echo "$failures checks failed"
  exit 1
fi
echo "all checks passed"
