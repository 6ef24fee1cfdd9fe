#!/usr/bin/env bash
# Compares the trace of one request with a file, and writes a page when it differs.
#
# Reads these variables:
#   FILE       the file of `lab expect`
#   ARGUMENTS  its other arguments, quoted as in a shell
#   HTML       the page to write
set -euo pipefail

# The author of the workflow wrote them, like the script of any other step.
eval "arguments=($ARGUMENTS)"
exec lab expect "$FILE" --format github --html "$HTML" "${arguments[@]}"
