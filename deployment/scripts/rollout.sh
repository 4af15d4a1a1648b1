#!/usr/bin/env bash
# Deploy or update the app and vLLM in the current cluster of kubectl.
#
#   BASE_MODEL=... ADAPTER=... APP_TOKEN=... VLLM_API_KEY=... deployment/scripts/rollout.sh IMAGE
#
# BASE_MODEL and ADAPTER are Hub repositories; set HF_TOKEN for private ones.
set -euo pipefail
image=${1:?pass the name of the image, for example medical-text-app:latest}
: "${BASE_MODEL:?set BASE_MODEL to the Hub name of the base model}"
: "${ADAPTER:?set ADAPTER to the Hub name of the adapter}"
: "${APP_TOKEN:?set APP_TOKEN to a long random string, for example from: openssl rand -hex 32}"
: "${VLLM_API_KEY:?set VLLM_API_KEY to another long random string}"
command -v kubectl > /dev/null || { echo "error: kubectl is not installed" >&2; exit 2; }
manifests=$(dirname "$0")/../kubernetes

kubectl apply -f "$manifests/00-namespace.yaml"
kubectl create configmap medical-text --namespace medical-text --dry-run=client -o yaml \
    --from-literal="BASE_MODEL=$BASE_MODEL" --from-literal="ADAPTER=$ADAPTER" | kubectl apply -f -
# secrets go through a pipe: every user of the machine can see the arguments of processes
printf 'APP_TOKEN=%s\nVLLM_API_KEY=%s\nHF_TOKEN=%s\n' "$APP_TOKEN" "$VLLM_API_KEY" "${HF_TOKEN:-}" |
    kubectl create secret generic medical-text --namespace medical-text --dry-run=client -o yaml \
        --from-env-file=/dev/stdin | kubectl apply -f -
kubectl apply -f "$manifests/network.yaml" -f "$manifests/vllm.yaml"
sed "s|image: medical-text-app:latest|image: $image|" "$manifests/app.yaml" | kubectl apply -f -
kubectl rollout status --namespace medical-text --timeout 40m deployment/medical-text-vllm
kubectl rollout status --namespace medical-text --timeout 10m deployment/medical-text-app
echo "to open the page: kubectl port-forward --namespace medical-text service/medical-text-app 7860:80"
