#!/usr/bin/env bash
# Build the image, push it to Artifact Registry and deploy it to an existing GKE cluster. The cluster needs a GPU node
# pool and enabled network policies.
#
#   PROJECT=... REGION=... CLUSTER=... BASE_MODEL=... BASE_REVISION=... ADAPTER=... ADAPTER_REVISION=... APP_TOKEN=... VLLM_API_KEY=... \
#       deployment/scripts/deploy_gcp.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${PROJECT:?set PROJECT to the id of the Google Cloud project}"
: "${REGION:?set REGION, for example europe-west4}"
: "${CLUSTER:?set CLUSTER to the name of the GKE cluster}"
: "${BASE_MODEL:?}" "${BASE_REVISION:?}" "${ADAPTER:?}" "${ADAPTER_REVISION:?}" "${APP_TOKEN:?}" "${VLLM_API_KEY:?}" # needed by rollout.sh; checked before the build
for tool in docker gcloud git kubectl; do
    command -v "$tool" > /dev/null || { echo "error: $tool is not installed" >&2; exit 2; }
done

where=(--project "$PROJECT" --location "$REGION")
registry() { gcloud artifacts repositories describe medical-text "${where[@]}" --format 'value(registryUri)'; }
registry > /dev/null 2>&1 ||
    gcloud artifacts repositories create medical-text "${where[@]}" --repository-format docker
name=$(registry)
image=$name/medical-text-app:$(git rev-parse --short HEAD)
gcloud auth configure-docker "${name%%/*}" --quiet
docker build --platform linux/amd64 -f deployment/Dockerfile -t "$image" .
docker push "$image"
gcloud container clusters get-credentials "$CLUSTER" "${where[@]}"
deployment/scripts/rollout.sh "$image"
