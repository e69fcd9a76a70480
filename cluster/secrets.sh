#!/usr/bin/env bash
# Create the Secrets that the manifests name. Values are asked for or drawn, and go to the cluster alone: into no file, no argument and no history.
#
#   NAMESPACE=ml-lifecycle KUBE_CONTEXT=my-cluster cluster/secrets.sh
#
# mlflow-login    user, password: of MLflow's server. The one in manifests/base asks for no login: there, any words will do.
# feature-stores  database-user, database-password: of PostgreSQL. redis-password: of Redis.
#                 sql, redis: the registry's and the online store's blocks of feature_store.yaml, as Feast's operator reads them.
#
# Where lifecycle.toml gives them other names (cluster.login_secret, cluster.stores_secret): LOGIN_SECRET=... STORES_SECRET=...
# Of servers of your own, name the address: DATABASE=host:5432 REDIS=host:6379. Press Enter at a password to have one drawn.
# Servers that were started keep the password that they were started with; so an existing Secret is left as it is. Delete it to make it anew.
set -euo pipefail

namespace=${NAMESPACE:-ml-lifecycle}
context=()
[ -z "${KUBE_CONTEXT:-}" ] || context=(--context "$KUBE_CONTEXT")
on() { kubectl ${context[@]+"${context[@]}"} --namespace "$namespace" "$@"; }

asked=
# Question, and what an empty answer stands for.
ask() {
  local hidden=()
  case $1 in *assword*) hidden=(-s) ;; esac
  read -r ${hidden[@]+"${hidden[@]}"} -p "$1: " asked || true # the end of the input is an empty answer
  [ -z "${hidden[*]-}" ] || echo
  asked=${asked:-$2}
  # It becomes part of an address, and of a list in which Feast reads numbers and words of JSON as such.
  case $asked in
    *[!A-Za-z0-9_.~-]* | [!A-Za-z]* | true | false | null | NaN | Infinity)
      echo "error: begin with a letter, and use letters, digits, and _ . ~ - only: the value becomes part of an address." >&2
      exit 1
      ;;
  esac
}
drawn() { printf p; od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }

# Name; on standard input lines key=value, in which \n stands for the end of a line.
secret() {
  local name=$1 line
  if on get secret "$name" >/dev/null 2>&1; then
    echo "the Secret $name is there already, and stays as it is"
    cat >/dev/null
    return
  fi
  {
    printf 'apiVersion: v1\nkind: Secret\nmetadata:\n  name: %s\nstringData:\n' "$name"
    while IFS= read -r line; do printf '  %s: "%s"\n' "${line%%=*}" "${line#*=}"; done
  } | on apply --filename -
}

ask "User of MLflow" lifecycle
user=$asked
ask "Password of MLflow (Enter to draw one)" "$(drawn)"
printf 'user=%s\npassword=%s\n' "$user" "$asked" | secret "${LOGIN_SECRET:-mlflow-login}"

ask "User of PostgreSQL" lifecycle
user=$asked
ask "Password of PostgreSQL (Enter to draw one)" "$(drawn)"
password=$asked
ask "Password of Redis (Enter to draw one)" "$(drawn)"
database=${DATABASE:-postgres.$namespace.svc.cluster.local:5432}
redis=${REDIS:-redis.$namespace.svc.cluster.local:6379}
# What clients read holds variables in place of logins.
# shellcheck disable=SC2016
{
  printf 'database-user=%s\ndatabase-password=%s\nredis-password=%s\n' "$user" "$password" "$asked"
  printf 'sql=path: postgresql+psycopg://${DATABASE_USER}:${DATABASE_PASSWORD}@%s/feast\\ncache_ttl_seconds: 60\\n\n' "$database"
  printf 'redis=connection_string: %s,password=${REDIS_PASSWORD},socket_connect_timeout=1,socket_timeout=1,retry=null\\n\n' "$redis"
} | secret "${STORES_SECRET:-feature-stores}"
