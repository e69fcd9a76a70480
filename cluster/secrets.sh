#!/usr/bin/env bash
# Create the Secrets that the manifests name. Values are asked for and go to the cluster alone: into no file, no argument and no history.
#
#   NAMESPACE=ml-lifecycle KUBE_CONTEXT=my-cluster cluster/secrets.sh
#
# mlflow-login    password: of MLflow's server. The one in manifests/base asks for no login: there, any word will do.
# feature-stores  redis: the online store's block of feature_store.yaml without its type, as Feast's operator reads it.
set -euo pipefail

namespace=${NAMESPACE:-ml-lifecycle}
context=()
[ -z "${KUBE_CONTEXT:-}" ] || context=(--context "$KUBE_CONTEXT")

# Name, key; the value comes on standard input.
secret() {
  kubectl ${context[@]+"${context[@]}"} create secret generic "$1" --namespace "$namespace" --from-file="$2=/dev/stdin" --dry-run=client --output=yaml |
    kubectl ${context[@]+"${context[@]}"} apply --namespace "$namespace" --filename -
}

read -rsp "Password for MLflow: " password || true # the end of the input is no password either
echo
[ -n "$password" ] || {
  echo "error: a Secret without a value would stop every step. Type a password." >&2
  exit 1
}
printf '%s' "$password" | secret mlflow-login password
printf 'connection_string: %s\n' "${REDIS:-redis:6379}" | secret feature-stores redis
