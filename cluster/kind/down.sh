#!/usr/bin/env bash
# Remove the cluster that up.sh made, with all that is in it. Never run, as up.sh.
set -euo pipefail
kind delete cluster --name ml-lifecycle
