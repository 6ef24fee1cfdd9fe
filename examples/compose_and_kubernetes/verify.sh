#!/usr/bin/env bash
# Builds the images, starts the services of compose.yaml, compares the trace of one request,
# and stops everything. Needs Docker with compose, and the lab or cargo.
set -euo pipefail
cd "$(dirname "$0")"
finish() {
  status=$?
  [ "$status" -eq 0 ] || docker compose logs --tail 50
  docker compose down
  exit "$status"
}
trap finish EXIT
docker compose up --build --detach --wait
bash one_trace.sh
