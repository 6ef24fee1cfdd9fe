#!/bin/sh
# Renders each page with the program named first. The program inherits the
# environment, and with it the context.
set -eu
render=$1
shift
for page; do
  "$render" "$page"
done
