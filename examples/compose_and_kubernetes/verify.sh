#!/usr/bin/env bash
# Builds the images, starts what compose.yaml says, asks for one trace, and stops all of it. Needs Docker with compose,
# curl and jq.
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
