#!/usr/bin/env bash
# Deploy or update the app and vLLM in the current cluster of kubectl.
#
#   BASE_MODEL=... BASE_REVISION=... ADAPTER=... ADAPTER_REVISION=... APP_TOKEN=... VLLM_API_KEY=... \
#       deployment/scripts/rollout.sh IMAGE
#
# BASE_MODEL and ADAPTER are Hub repositories; set HF_TOKEN for private ones. The revisions are commits, so that what
# answers is what was evaluated, and IMAGE has a tag other than `latest` or a digest.
set -euo pipefail
image=${1:?pass the name of the image, for example medical-text-app:1.0}
: "${BASE_MODEL:?set BASE_MODEL to the Hub name of the base model}"
: "${ADAPTER:?set ADAPTER to the Hub name of the adapter}"
: "${BASE_REVISION:?set BASE_REVISION to a commit of the base model, as task.json names it}"
: "${ADAPTER_REVISION:?set ADAPTER_REVISION to a commit of the adapter}"
: "${APP_TOKEN:?set APP_TOKEN to a long random string, for example from: openssl rand -hex 32}"
: "${VLLM_API_KEY:?set VLLM_API_KEY to another long random string}"
command -v kubectl > /dev/null || { echo "error: kubectl is not installed" >&2; exit 2; }
case $image in
    *:latest) echo "error: image $image may change: give a tag of its own, or a digest" >&2; exit 2 ;;
    *:* | *@*) ;;
    *) echo "error: image $image has no tag: give one, or a digest" >&2; exit 2 ;;
esac
manifests=$(dirname "$0")/../kubernetes

kubectl apply -f "$manifests/00-namespace.yaml"
kubectl create configmap medical-text --namespace medical-text --dry-run=client -o yaml \
    --from-literal="BASE_MODEL=$BASE_MODEL" --from-literal="BASE_REVISION=$BASE_REVISION" \
    --from-literal="ADAPTER=$ADAPTER" --from-literal="ADAPTER_REVISION=$ADAPTER_REVISION" | kubectl apply -f -
# secrets go through a pipe: every user of the machine can see the arguments of processes
printf 'APP_TOKEN=%s\nVLLM_API_KEY=%s\nHF_TOKEN=%s\n' "$APP_TOKEN" "$VLLM_API_KEY" "${HF_TOKEN:-}" |
    kubectl create secret generic medical-text --namespace medical-text --dry-run=client -o yaml \
        --from-env-file=/dev/stdin | kubectl apply -f -
# pods read settings once: another checksum in their template starts new ones
checksum=$(printf '%s\n' "$BASE_MODEL" "$BASE_REVISION" "$ADAPTER" "$ADAPTER_REVISION" "$APP_TOKEN" "$VLLM_API_KEY" \
    "${HF_TOKEN:-}" | sha256sum | cut -c 1-16)
kubectl apply -f "$manifests/network.yaml"
sed "s|checksum/settings: none|checksum/settings: \"$checksum\"|" "$manifests/vllm.yaml" | kubectl apply -f -
sed "s|checksum/settings: none|checksum/settings: \"$checksum\"|; s|image: medical-text-app:1.0|image: $image|" \
    "$manifests/app.yaml" | kubectl apply -f -
kubectl rollout status --namespace medical-text --timeout 40m deployment/medical-text-vllm
kubectl rollout status --namespace medical-text --timeout 10m deployment/medical-text-app
echo "to open the page: kubectl port-forward --namespace medical-text service/medical-text-app 7860:80"
