#!/usr/bin/env bash
# A cluster on this machine with kind: pinned releases of Kubeflow and its neighbours, the lifecycle's image, its manifests, and
# the notebooks in it.
#
#   cluster/kind/up.sh [--dry-run | --platforms]
#
# --platforms ends once the platforms are ready, with the images loaded: what `make cluster-test` wants.
# Not run as it is here: no kind was to be had. Checked are its syntax, what --dry-run prints, and the manifests that it applies; its steps were taken by hand on a real cluster.
# It needs docker, kind, kubectl and helm, some 12 GB of memory, five cores, and a network; --dry-run needs none of them. What is rendered comes from this clone's
# environment (`make run` made it). Run again, it goes on where it stopped: what is there is kept, and applied anew.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

CLUSTER=ml-lifecycle
NAMESPACE=kubeflow # Kubeflow Pipelines alone, without profiles, runs its steps in its own namespace
IMAGE=${LIFECYCLE_IMAGE:-ml-lifecycle:1.0}
TRAINING_IMAGE=ml-lifecycle:1.0-distributed # cluster.training_image in lifecycle.toml; made by `make image EXTRA=distributed`
# kind 0.33 lists this image in its release notes.
NODE=kindest/node:v1.34.11@sha256:44e222ee2132dab25ff87301682f89eb82c7880ea3a1bf543bfe9708fd08d67d
CERT_MANAGER=v1.17.0 # what KServe 0.20 is released with
PIPELINES=2.17.0 # the newest release of the cluster's part; the SDK of the lock is a later patch of 2.17
TRAINER=v2.3.0 # that of the lock's kubeflow-trainer-api
KATIB=v0.19.0 # that of the lock's kubeflow-katib-api
KSERVE=v0.20.0
FEAST_OPERATOR=v0.66.0

dry_run=
platforms=
case "${1:-}" in
  --dry-run) dry_run=yes ;;
  --platforms) platforms=yes ;;
  '') ;;
  *)
    echo "usage: cluster/kind/up.sh [--dry-run | --platforms]" >&2
    exit 2
    ;;
esac

# Print a command, and run it.
run() {
  printf '+'
  printf ' %q' "$@"
  printf '\n'
  [ -n "$dry_run" ] || "$@"
}

rendered=$(mktemp -d)
trap 'rm -rf "$rendered"' EXIT
if [ -z "$dry_run" ]; then
  for program in docker kind kubectl helm; do
    command -v "$program" >/dev/null || {
      echo "error: $program is not installed. --dry-run prints the commands without it." >&2
      exit 1
    }
  done
fi
on() { run kubectl --context "kind-$CLUSTER" "$@"; }
# Unlike kubectl's, this wait ends within a minute on what cannot start, and says why.
started() { run .venv/bin/lifecycle wait --context "kind-$CLUSTER" --namespace "$NAMESPACE" "$@"; }
ready() { on wait --for=condition=Available --timeout=900s --namespace "$1" deployment --all; }

# The cluster, and the image in it: no registry is asked for it.
if [ -n "$dry_run" ] || ! kind get clusters 2>/dev/null | grep -qx "$CLUSTER"; then
  run kind create cluster --name "$CLUSTER" --image "$NODE" --wait 180s
fi
# Else its volumes are of a kind for which Kubernetes sets no group.
on annotate storageclass standard --overwrite defaultVolumeType=local
run kind load docker-image "$IMAGE" --name "$CLUSTER"
distributed=
if [ -n "$dry_run" ] || docker image inspect "$TRAINING_IMAGE" >/dev/null 2>&1; then
  distributed=yes
  run kind load docker-image "$TRAINING_IMAGE" --name "$CLUSTER"
fi

# Kubeflow and its neighbours.
on apply -f "https://github.com/cert-manager/cert-manager/releases/download/$CERT_MANAGER/cert-manager.yaml"
ready cert-manager
from=github.com/kubeflow/pipelines/manifests/kustomize
on apply -k "$from/cluster-scoped-resources?ref=$PIPELINES"
on wait --for=condition=Established --timeout=120s crd/applications.app.k8s.io
on apply -k "$from/env/platform-agnostic?ref=$PIPELINES"
on apply --server-side -k "https://github.com/kubeflow/trainer.git/manifests/overlays/manager?ref=$TRAINER"
ready kubeflow-system
on apply --server-side -k "https://github.com/kubeflow/trainer.git/manifests/overlays/runtimes?ref=$TRAINER"
on apply -k "github.com/kubeflow/katib.git/manifests/v1beta1/installs/katib-standalone?ref=$KATIB"
on label namespace "$NAMESPACE" --overwrite katib.kubeflow.org/metrics-collector-injection=enabled
charts=oci://ghcr.io/kserve/charts
run helm --kube-context "kind-$CLUSTER" upgrade --install kserve-crd "$charts/kserve-crd" --version "$KSERVE" --namespace kserve --create-namespace --wait
run helm --kube-context "kind-$CLUSTER" upgrade --install kserve "$charts/kserve-resources" --version "$KSERVE" --namespace kserve --wait \
  --set kserve.controller.deploymentMode=Standard --set kserve.controller.gateway.disableIngressCreation=true \
  --set kserve.controller.gateway.disableIstioVirtualHost=true
on apply --server-side --force-conflicts -f \
  "https://raw.githubusercontent.com/feast-dev/feast/refs/tags/$FEAST_OPERATOR/infra/feast-operator/dist/install.yaml"
ready "$NAMESPACE"
ready feast-operator-system
[ -z "$platforms" ] || exit 0

# What must be there before anything runs. The secrets are asked for, and land in no file.
# kind's volumes are folders of its one node, so one node mounts them.
run .venv/bin/python cluster/render.py "$rendered" --namespace "$NAMESPACE" --image "$IMAGE" --access ReadWriteOnce
run env NAMESPACE="$NAMESPACE" KUBE_CONTEXT="kind-$CLUSTER" bash cluster/secrets.sh
on apply -k "$rendered/manifests/base"

# Definitions, data, and the notebooks onto the volume. Code that a step runs comes from the image alone. Not feature_store.yaml:
# a job puts the cluster's there, once, and this machine's would send each step to files.
definitions=':!feature_repo/feature_store.yaml'
on apply --namespace "$NAMESPACE" -f cluster/kind/loader.yaml
on wait --for=condition=Ready --timeout=300s --namespace "$NAMESPACE" pod/loader
if [ -n "$dry_run" ]; then
  echo "+ git archive HEAD . '$definitions' | kubectl --context kind-$CLUSTER exec --namespace $NAMESPACE --stdin loader -- tar -xf - -C /ml-lifecycle"
else
  git archive HEAD . "$definitions" | kubectl --context "kind-$CLUSTER" exec --namespace "$NAMESPACE" --stdin loader -- tar -xf - -C /ml-lifecycle
fi
on delete pod loader --namespace "$NAMESPACE"
started deployment/redis deployment/postgres deployment/mlflow

# The cluster's settings beside the definitions; Feast's servers; the job that materializes.
on apply -k "$rendered/manifests/features"
# A rendered job's name ends with a digest of what it does.
named() { sed -n 's/^  name: \(.*-[0-9a-f]\{8\}\)$/\1/p' "$1"; }
apply=apply-features-00000000 training=driver-training-00000000
[ -n "$dry_run" ] || apply=$(named "$rendered/manifests/features/apply.yaml") training=$(named "$rendered/manifests/models/train_job.yaml")
started "job/$apply"

# A TrainJob needs the image with PyTorch. It trains once: sent again, the same job is unchanged.
if [ -n "$distributed" ]; then
  on apply --namespace "$NAMESPACE" -f "$rendered/manifests/models/train_job.yaml"
  started "trainjob/$training"
else
  echo "$TRAINING_IMAGE is not here, so no TrainJob runs: make image EXTRA=distributed"
fi

# Notebooks 06, 07 and 10 with BACKEND=kubernetes: they make what they need of the earlier ones, then a pipeline run, an InferenceService and a sweep.
on delete --namespace "$NAMESPACE" --ignore-not-found configmap/notebooks job/notebooks
on create --namespace "$NAMESPACE" configmap notebooks --from-literal="LIFECYCLE_IMAGE=$IMAGE" --from-literal="LIFECYCLE_NAMESPACE=$NAMESPACE"
on apply --namespace "$NAMESPACE" -f cluster/kind/notebooks.yaml
started --patience 7200 job/notebooks
if [ -n "$dry_run" ]; then
  echo "Nothing was run."
  exit
fi
echo "The executed notebooks lie on the volume, in workspace/executed. cluster/kind/down.sh removes the cluster with all that is in it."
