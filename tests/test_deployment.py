"""Checks of deployment/ that need no container engine and no cluster."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from conftest import ROOT

DEPLOYMENT = ROOT / "deployment"
SCRIPTS = sorted((DEPLOYMENT / "scripts").glob("*.sh"))
MANIFESTS = sorted((DEPLOYMENT / "kubernetes").glob("*.yaml"))
DOCKERFILE = (DEPLOYMENT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((DEPLOYMENT / "compose.yaml").read_text(encoding="utf-8"))
RESOURCES = [r for path in MANIFESTS for r in yaml.safe_load_all(path.read_text(encoding="utf-8"))]
DEPLOYMENTS = {r["metadata"]["name"]: r for r in RESOURCES if r["kind"] == "Deployment"}
APP, VLLM = DEPLOYMENTS["medical-text-app"], DEPLOYMENTS["medical-text-vllm"]
ROLLOUT = ["BASE_MODEL", "BASE_REVISION", "ADAPTER", "ADAPTER_REVISION", "APP_TOKEN", "VLLM_API_KEY"]
SECRETS = {"APP_TOKEN": "token-7f3a", "VLLM_API_KEY": "key-91bc", "HF_TOKEN": "hub-5d20"}


def run(*command: Any, **environment: str) -> subprocess.CompletedProcess:
    """Run a command with nothing in its environment but what is given; tools come from beside this Python."""
    path = f"{environment.pop('PATH', '')}:{Path(sys.executable).parent}:{os.defpath}"
    return subprocess.run(
        list(map(str, command)), env={"PATH": path} | environment, cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def kinds(kind: str) -> list[dict[str, Any]]:
    return [resource for resource in RESOURCES if resource["kind"] == kind]


def pod(deployment: dict[str, Any]) -> dict[str, Any]:
    return deployment["spec"]["template"]["spec"]


def container(deployment: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod(deployment)["containers"]
    return only


def all_containers(deployment: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod(deployment).get("initContainers", []), container(deployment)]


def app_source() -> ast.Module:
    return ast.parse((ROOT / "app.py").read_text(encoding="utf-8"))


def app_arguments() -> dict[str, Any]:
    """Fields of `AppArguments` and their constant defaults, read from the source: importing it loads torch."""
    (arguments,) = [n for n in app_source().body if isinstance(n, ast.ClassDef) and n.name == "AppArguments"]
    found = {}
    for field in (node for node in arguments.body if isinstance(node, ast.AnnAssign)):
        given = {keyword.arg: keyword.value for keyword in field.value.keywords}
        text = ast.unparse(given["default_factory"]) if "default_factory" in given else ""
        fallback = re.search(r"os\.environ\.get\(.+?, (.+?)\)", text)  # a variable, or else this
        found[field.target.id] = (
            ast.literal_eval(fallback[1]) if fallback else getattr(given.get("default"), "value", None)
        )
    return found


def app_variables() -> set[str]:
    """Names of the environment variables that app.py reads."""
    return set(re.findall(r"os\.environ(?:\.get\(|\[)\"(\w+)\"", ast.unparse(app_source()).replace("'", '"')))


# ----- Image


def test_dockerfile_passes_hadolint():
    done = run("hadolint", "--failure-threshold", "info", DEPLOYMENT / "Dockerfile")
    assert done.returncode == 0, done.stdout
    assert "hadolint ignore=DL3008" in DOCKERFILE and DOCKERFILE.count("hadolint ignore") == 1


def test_what_is_copied_exists_and_nothing_else_reaches_the_builder():
    lines = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    copied = {source for line in lines for source in line.split()}
    assert len(copied) == 6 and all((ROOT / source).exists() for source in copied)
    first, *rest = [
        line
        for line in (DEPLOYMENT / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    assert first == "*" and {line[1:] for line in rest if line.startswith("!")} == copied
    assert [line for line in rest if not line.startswith("!")] == ["**/__pycache__"]


@pytest.mark.parametrize("files", [["app"], ["app", "export"]])
def test_the_image_installs_the_requirement_files_that_are_asked_for(files: list[str], tmp_path: Path):
    assert 'ARG REQUIREMENTS="app"\n' in DOCKERFILE and all(
        (ROOT / f"requirements/{name}.txt").exists() for name in files
    )
    command = re.search(r"^RUN --mount=\S+ \\\n((?:.+\\\n)+.+)$", DOCKERFILE, re.MULTILINE)[1].replace("\\\n", " ")
    (tmp_path / "uv").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "uv").chmod(0o755)
    values = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "REQUIREMENTS": " ".join(files), "TORCH_BACKEND": "cpu"}
    done = subprocess.run(["sh", "-c", command], env=values, capture_output=True, text=True, check=True)
    own = [word for name in files for word in ("-r", f"/tmp/requirements/{name}.txt")]
    assert done.stdout.split()[-2 - len(own) :] == ["-r", "/tmp/requirements.txt", *own]


def test_the_image_holds_every_local_module_that_its_scripts_import():
    for name in ("app.py", "predict.py"):
        tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
        modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
        local = {module.split(".")[0] for module in modules if (ROOT / module.split(".")[0]).exists()}
        local |= {module for module in modules if (ROOT / f"{module}.py").exists()}
        assert local == {"utils"}


def test_the_last_stage_is_not_root_and_builds_nothing():
    last = DOCKERFILE.rsplit("\nFROM ", 1)[1]
    assert re.findall(r"^USER (.+)$", last, re.MULTILINE) == ["1000:1000"]
    assert not re.search(r"\b(gcc|g\+\+|build-essential|pip install|uv pip)\b", last)
    assert re.findall(r"^EXPOSE (\d+)$", last, re.MULTILINE) == [str(app_arguments()["port"])]
    assert f":{app_arguments()['port']}/health" in re.search(r"^HEALTHCHECK.*\n.*$", last, re.MULTILINE)[0]


def test_the_image_ends_at_sigterm_and_its_user_can_read_it():
    last = DOCKERFILE.rsplit("\nFROM ", 1)[1]
    (entrypoint,) = re.findall(r"^ENTRYPOINT (.+)$", last, re.MULTILINE)
    assert json.loads(entrypoint) == ["tini", "-e", "143", "--", "/bin/sh", "entrypoint.sh"]  # not as process 1
    assert re.search(r"apt-get install .*\btini\b", last) and "init" not in COMPOSE["services"]["app"]
    assert last.index("COPY app.py") < last.index("\nRUN chmod -R a+rX .") < last.index("\nUSER ")


@pytest.mark.parametrize("environment", [{}, {"APP_TOKEN": ""}])
def test_a_container_without_a_token_does_not_start(environment: dict[str, str]):
    done = run("/bin/sh", DEPLOYMENT / "entrypoint.sh", **environment)
    assert done.returncode != 0 and "set APP_TOKEN" in done.stderr and done.stdout == ""


def test_the_entrypoint_hands_its_arguments_to_the_app(tmp_path: Path):
    write_tool(tmp_path / "python", 'printf "%s|" "$@"')
    done = run("/bin/sh", DEPLOYMENT / "entrypoint.sh", "--model", "a b", PATH=str(tmp_path), APP_TOKEN="t")
    assert done.stdout == "app.py|--model|a b|"


# ----- Compose


def test_compose_file_follows_the_compose_schema(tmp_path: Path):
    check = ("check-jsonschema", "--builtin-schema", "vendor.compose-spec")
    done = run(*check, DEPLOYMENT / "compose.yaml")
    assert done.returncode == 0, done.stdout
    misspelt = tmp_path / "compose.yaml"
    misspelt.write_text(yaml.safe_dump(COMPOSE | {"services": {"app": {"image": "a", "cap_dorp": ["ALL"]}}}))
    assert run(*check, misspelt).returncode == 1


def test_compose_services_are_locked_down():
    app, with_vllm, vllm = (COMPOSE["services"][name] for name in ("app", "app-vllm", "vllm"))
    for service in (app, vllm):
        assert service["read_only"] and service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert all(v["read_only"] for v in service["volumes"] if isinstance(v, dict))
    assert with_vllm["extends"] == {"service": "app"} and not {"cap_drop", "read_only"} & set(with_vllm)
    assert app["environment"]["APP_TOKEN"].startswith("${APP_TOKEN:?")  # compose stops without one
    assert all(port.startswith("127.0.0.1:") for port in app["ports"])
    assert "ports" not in vllm and vllm["user"] == "2000:0"


def test_compose_builds_this_dockerfile_from_this_repository():
    build = COMPOSE["services"]["app"]["build"]
    context = (DEPLOYMENT / build["context"]).resolve()
    assert context == ROOT and (context / build["dockerfile"]).samefile(DEPLOYMENT / "Dockerfile")


# ----- Kubernetes


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda r: f"{r['kind']}-{r['metadata']['name']}")
def test_manifest_follows_the_schema_of_kubernetes(resource: dict[str, Any]):
    kubernetes_validate.validate(resource, "1.37", strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(resource | {"spce": {}}, "1.37", strict=True)


def test_every_kind_that_was_promised_is_there():
    found = {(r["kind"], r["metadata"]["name"]) for r in RESOURCES}
    assert len(found) == len(RESOURCES) == 12
    assert {kind for kind, _ in found} == {
        "Namespace", "Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy",
        "PersistentVolumeClaim",
    }  # fmt: skip
    assert all(r["metadata"].get("namespace") == "medical-text" for r in RESOURCES if r["kind"] != "Namespace")


@pytest.mark.parametrize("deployment", DEPLOYMENTS.values(), ids=DEPLOYMENTS)
def test_pods_keep_the_restricted_standard(deployment: dict[str, Any]):
    spec, own = pod(deployment), container(deployment)
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for each in all_containers(deployment):
        assert each["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    assert spec["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert all(set(volume) - {"name"} <= {"emptyDir", "persistentVolumeClaim"} for volume in spec["volumes"])
    assert {"cpu", "memory"} <= set(own["resources"]["requests"]) and "memory" in own["resources"]["limits"]


@pytest.mark.parametrize("deployment", DEPLOYMENTS.values(), ids=DEPLOYMENTS)
def test_what_a_pod_refers_to_is_there(deployment: dict[str, Any]):
    spec, own = pod(deployment), container(deployment)
    assert {mount["name"] for mount in own["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}
    claims = {v["persistentVolumeClaim"]["claimName"] for v in spec["volumes"] if "persistentVolumeClaim" in v}
    assert claims <= {claim["metadata"]["name"] for claim in kinds("PersistentVolumeClaim")}
    ports = {port["name"] for port in own["ports"]}
    for probe, path in (("startupProbe", "/live"), ("readinessProbe", "/ready"), ("livenessProbe", "/live")):
        known = path if deployment is APP else "/health"  # the app is ready while vLLM is down, for emergencies
        assert own[probe]["httpGet"] == {"path": known, "port": "http"} and "http" in ports
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels
    (service,) = [s for s in kinds("Service") if s["metadata"]["name"] == deployment["metadata"]["name"]]
    assert service["spec"]["selector"].items() <= labels
    assert all(port["targetPort"] in ports for port in service["spec"]["ports"])
    for each in all_containers(deployment):
        used = {name for text in each.get("args", each.get("command")) for name in re.findall(r"\$\((\w+)\)", text)}
        assert used <= {variable["name"] for variable in each["env"]}


def test_no_manifest_holds_a_secret_and_rollout_makes_those_that_are_named():
    rollout = (DEPLOYMENT / "scripts/rollout.sh").read_text(encoding="utf-8")
    for deployment in DEPLOYMENTS.values():
        for variable in [variable for each in all_containers(deployment) for variable in each["env"]]:
            reference = variable.get("valueFrom", {})
            if re.search("TOKEN|KEY|SECRET", variable["name"]):
                assert list(reference) == ["secretKeyRef"], variable["name"]
            for kind, prefix in (("secretKeyRef", "{}=%s"), ("configMapKeyRef", '--from-literal="{}=')):
                if kind in reference:
                    assert reference[kind]["name"] == "medical-text"
                    assert prefix.format(reference[kind]["key"]) in rollout


def test_the_autoscaler_and_the_budget_are_the_apps():
    (scaler,), (budget,) = kinds("HorizontalPodAutoscaler"), kinds("PodDisruptionBudget")
    target = scaler["spec"]["scaleTargetRef"]
    assert (target["apiVersion"], target["kind"], target["name"]) == ("apps/v1", "Deployment", "medical-text-app")
    assert budget["spec"]["selector"] == APP["spec"]["selector"]
    assert scaler["spec"]["minReplicas"] > budget["spec"]["minAvailable"]
    assert "replicas" not in APP["spec"] and "cpu" in container(APP)["resources"]["requests"]


def test_vllm_is_reached_from_the_app_alone():
    policies = {policy["metadata"]["name"]: policy["spec"] for policy in kinds("NetworkPolicy")}
    assert policies["deny-all"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    to_vllm = [p for p in policies.values() if p["podSelector"] == VLLM["spec"]["selector"] and "ingress" in p]
    (rule,) = [rule for policy in to_vllm for rule in policy["ingress"]]
    vllm_port = container(VLLM)["ports"][0]["containerPort"]
    assert rule["from"] == [{"podSelector": APP["spec"]["selector"]}]
    assert [port["port"] for port in rule["ports"]] == [vllm_port]
    app = policies["app"]
    assert app["podSelector"] == APP["spec"]["selector"]
    assert app["ingress"][0]["ports"][0]["port"] == container(APP)["ports"][0]["containerPort"]
    assert app["egress"][0]["to"] == [{"podSelector": VLLM["spec"]["selector"]}]
    assert app["egress"][0]["ports"][0]["port"] == vllm_port


# ----- What the app is told


def given(arguments: list[str]) -> dict[str, str]:
    return {name.removeprefix("--"): value for name, value in zip(arguments[::2], arguments[1::2], strict=True)}


def test_app_knows_its_arguments_and_variables():
    in_cluster, in_compose = given(container(APP)["args"]), given(COMPOSE["services"]["app-vllm"]["command"])
    assert in_cluster["backend"] == in_compose["backend"] == "openai"
    assert {*in_cluster, *in_compose} <= set(app_arguments())
    known = app_variables() | {"HF_TOKEN"}  # which huggingface_hub reads
    services = [COMPOSE["services"][name]["environment"] for name in ("app", "app-vllm")]
    assert {name for service in services for name in service} <= known
    used_in_arguments = {"ADAPTER", "ADAPTER_REVISION"}
    assert {v["name"] for v in container(APP)["env"]} <= known | used_in_arguments
    assert {"GRADIO_SERVER_NAME", "APP_TOKEN"} <= app_variables() and "GRADIO_SERVER_NAME=0.0.0.0" in DOCKERFILE


def test_app_asks_the_server_and_the_model_that_vllm_serves():
    told, vllm = given(container(APP)["args"]), container(VLLM)["args"]
    assert told["base_url"] == "http://medical-text-vllm:8000/v1"
    assert container(VLLM)["ports"][0]["containerPort"] == 8000 and "--port=8000" in vllm
    fetch = pod(VLLM)["initContainers"][0]["command"]
    assert f"--lora-modules={told['served_model']}={fetch[-1]}" in vllm and "--enable-lora" in vllm
    assert fetch[:5] == ["hf", "download", "$(ADAPTER)", "--revision", "$(ADAPTER_REVISION)"]
    assert told["revision"] == "$(ADAPTER_REVISION)" and "--revision=$(BASE_REVISION)" in vllm
    services = COMPOSE["services"]
    assert given(services["app-vllm"]["command"])["base_url"] == "http://vllm:8000/v1"
    adapter = services["app-vllm"]["environment"]["APP_MODEL"].removeprefix("outputs/")
    assert f"--lora-modules={adapter}=/outputs/{adapter}" in services["vllm"]["command"]


def test_vllm_takes_adapters_of_the_recipes_rank():
    recipe = yaml.safe_load((ROOT / "recipes/phi3_qlora.yaml").read_text(encoding="utf-8"))
    for arguments in (container(VLLM)["args"], COMPOSE["services"]["vllm"]["command"]):
        (rank,) = [a.removeprefix("--max-lora-rank=") for a in arguments if a.startswith("--max-lora-rank=")]
        (length,) = [a.removeprefix("--max-model-len=") for a in arguments if a.startswith("--max-model-len=")]
        assert int(rank) >= recipe["lora_r"] and int(length) >= recipe["max_length"] + recipe["max_new_tokens"]


def test_a_pod_is_given_the_time_that_the_app_takes_to_end():
    limit = app_arguments()["time_limit"]
    sleep = container(APP)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod(APP)["terminationGracePeriodSeconds"] > limit + 1 + sleep
    assert int(COMPOSE["services"]["app"]["stop_grace_period"].removesuffix("s")) > limit + 1


def test_images_name_no_host():
    images = [container(deployment)["image"] for deployment in DEPLOYMENTS.values()]
    images += [service["image"] for service in COMPOSE["services"].values() if "image" in service]
    assert set(images) == {"medical-text-app:latest", "medical-text-app:1.0", "vllm/vllm-openai:v0.33.0"}
    for path in (path for path in DEPLOYMENT.rglob("*") if path.is_file()):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\b(docker|quay|gcr|ghcr|nvcr|pkg\.dev|amazonaws|azurecr)\.?(io|com)?/", text), path


# ----- Scripts


def write_tool(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.mark.parametrize("script", [*SCRIPTS, DEPLOYMENT / "entrypoint.sh"], ids=lambda path: path.name)
def test_script_passes_shellcheck(script: Path):
    done = run("shellcheck", script)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("script", "variables"),
    [
        ("rollout.sh", ROLLOUT),
        ("deploy_aws.sh", ["AWS_REGION", "CLUSTER", *ROLLOUT]),
        ("deploy_gcp.sh", ["PROJECT", "REGION", "CLUSTER", *ROLLOUT]),
    ],
)
def test_script_names_the_variable_that_is_missing_and_calls_nothing(
    script: str, variables: list[str], tmp_path: Path
):
    for tool in ("aws", "docker", "gcloud", "git", "kubectl"):
        write_tool(tmp_path / tool, f"touch {tmp_path}/called")
    for missing in variables:
        environment = {name: "x" for name in variables if name != missing}
        done = run("bash", DEPLOYMENT / "scripts" / script, "an-image", PATH=str(tmp_path), **environment)
        assert done.returncode != 0 and missing in done.stderr
    assert not (tmp_path / "called").exists()


def test_rollout_applies_everything_and_shows_no_secret_to_other_processes(tmp_path: Path):
    # kubectl is not at hand: in its place a script that writes down its arguments and what it is sent
    body = f'echo "$@" >> {tmp_path}/arguments\n[ -t 0 ] || cat | tee -a {tmp_path}/sent'
    write_tool(tmp_path / "kubectl", body)
    variables = SECRETS | {"BASE_MODEL": "some/base", "ADAPTER": "some/adapter"}
    variables |= {"BASE_REVISION": "1a2b", "ADAPTER_REVISION": "3c4d"}
    done = run("bash", DEPLOYMENT / "scripts/rollout.sh", "my-app:1234", PATH=str(tmp_path), **variables)
    assert done.returncode == 0, done.stderr
    arguments, sent = (tmp_path / "arguments").read_text(), (tmp_path / "sent").read_text()
    assert all(f"{name}={value}\n" in sent for name, value in SECRETS.items())
    assert not any(value in arguments for value in SECRETS.values())
    assert "BASE_MODEL=some/base" in arguments and "ADAPTER=some/adapter" in arguments
    assert "BASE_REVISION=1a2b" in arguments and "ADAPTER_REVISION=3c4d" in arguments
    assert "image: my-app:1234\n" in sent and "medical-text-app:1.0" not in sent
    (checksum,) = set(re.findall(r'checksum/settings: "(\w+)"', sent))  # of both deployments
    for changed in ({"APP_TOKEN": "another"}, {"ADAPTER_REVISION": "5e6f"}):
        (tmp_path / "sent").write_text("")
        run("bash", DEPLOYMENT / "scripts/rollout.sh", "my-app:1234", PATH=str(tmp_path), **variables | changed)
        assert checksum not in (tmp_path / "sent").read_text()  # so that the pods are started anew
    applied = {path.name for path in MANIFESTS if path.name in arguments}
    assert applied == {path.name for path in MANIFESTS} - {"app.yaml", "vllm.yaml"}  # which come through the pipe
    assert arguments.index("00-namespace.yaml") < arguments.index("create secret") < arguments.index("network.yaml")


@pytest.mark.parametrize("image", ["my-app", "my-app:latest"])
def test_rollout_refuses_an_image_that_may_change(image: str, tmp_path: Path):
    write_tool(tmp_path / "kubectl", f"touch {tmp_path}/called")
    variables = SECRETS | dict.fromkeys(("BASE_MODEL", "BASE_REVISION", "ADAPTER", "ADAPTER_REVISION"), "x")
    done = run("bash", DEPLOYMENT / "scripts/rollout.sh", image, PATH=str(tmp_path), **variables)
    assert done.returncode == 2 and image in done.stderr and not (tmp_path / "called").exists()


# ----- Space


def test_the_head_of_the_space_names_what_this_repository_has():
    head = yaml.safe_load((DEPLOYMENT / "space" / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert head["sdk"] == "gradio" and re.fullmatch(r"\d+\.\d+\.\d+", head["sdk_version"])  # of the Space alone
    assert (ROOT / head["app_file"]).is_file() and re.fullmatch(r"3\.1\d", head["python_version"])
    assert head["license"] == "apache-2.0" and "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
