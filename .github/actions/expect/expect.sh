#!/usr/bin/env bash
# Compares the trace of one request with a file. When they differ, writes a page that shows the request.
#
# Reads these variables:
#   FILE       the file of `lab expect`
#   ARGUMENTS  its other arguments, quoted as in a shell
#   HTML       the page to write
set -euo pipefail

# The author of the workflow wrote them, like the script of any other step.
arguments=()
eval "arguments=($ARGUMENTS)"
exec lab expect "$FILE" --format github --html "$HTML" "${arguments[@]}"
