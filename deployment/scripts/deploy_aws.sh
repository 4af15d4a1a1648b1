#!/usr/bin/env bash
# Build the image, push it to ECR and deploy it to an existing EKS cluster. The cluster needs a GPU node, NVIDIA's
# device plugin and a network add-on that enforces network policies.
#
#   AWS_REGION=... CLUSTER=... BASE_MODEL=... BASE_REVISION=... ADAPTER=... ADAPTER_REVISION=... APP_TOKEN=... VLLM_API_KEY=... deployment/scripts/deploy_aws.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${AWS_REGION:?set AWS_REGION, for example eu-central-1}"
: "${CLUSTER:?set CLUSTER to the name of the EKS cluster}"
: "${BASE_MODEL:?}" "${BASE_REVISION:?}" "${ADAPTER:?}" "${ADAPTER_REVISION:?}" "${APP_TOKEN:?}" "${VLLM_API_KEY:?}" # needed by rollout.sh; checked before the build
for tool in aws docker git kubectl; do
    command -v "$tool" > /dev/null || { echo "error: $tool is not installed" >&2; exit 2; }
done
export AWS_REGION

uri() {
    aws ecr describe-repositories --repository-names medical-text-app \
        --query 'repositories[0].repositoryUri' --output text
}
uri > /dev/null 2>&1 ||
    aws ecr create-repository --repository-name medical-text-app --image-scanning-configuration scanOnPush=true
name=$(uri)
image=$name:$(git rev-parse --short HEAD)
aws ecr get-login-password | docker login --username AWS --password-stdin "${name%%/*}"
docker build --platform linux/amd64 -f deployment/Dockerfile -t "$image" .
docker push "$image"
aws eks update-kubeconfig --name "$CLUSTER"
deployment/scripts/rollout.sh "$image"
