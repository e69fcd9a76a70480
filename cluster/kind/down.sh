#!/usr/bin/env bash
# Remove the cluster that up.sh made, with all that is in it. Never run, as up.sh.
#
#   cluster/kind/down.sh [--dry-run]
set -euo pipefail

command=(kind delete cluster --name ml-lifecycle)
case "${1:-}" in
  --dry-run) printf '+ %s\nNothing was run.\n' "${command[*]}" ;;
  '') "${command[@]}" ;;
  *)
    echo "usage: cluster/kind/down.sh [--dry-run]" >&2
    exit 2
    ;;
esac
