"""The manifests in deploy/kubernetes are valid, safe, and agree with the server, the images and the operators' page."""

from __future__ import annotations

import ast
import copy
import functools
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pod_security
import pytest
import yaml

from release.private import expected

ROOT = Path.cwd()
MANIFESTS = ROOT / "deploy/kubernetes"
SERVER = ROOT / "src/mlc_llm"
KUSTOMIZE = Path(os.environ["KUSTOMIZE"]).absolute()
PUBLISHED = expected.published_images(Path(os.environ["PUBLISHED"]))
PAGE = Path(os.environ["KUBERNETES_PAGE"]).read_text(encoding="utf-8")
BLOCKS = [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)]
EXAMPLES = [block for block in BLOCKS if block.get("kind") == "Kustomization"]
(ADAPTER,) = (block["rules"] for block in BLOCKS if "rules" in block)

COMPONENTS = sorted(path.parent.name for path in MANIFESTS.glob("components/*/kustomization.yaml"))

# What a cluster admits. Since 1.35 the feature gate ImageVolume is on by default.
VERSIONS = ("1.35", kubernetes_validate.latest_version())

# The image that users must make themselves.
PLACEHOLDER = "model_for_gpu"

# Kustomize 5.6, Debian's, does not replace images in volumes; 5.7 has this setting built in.
IMAGE_VOLUMES = {"images": [{"path": "spec/template/spec/volumes[]/image/reference", "create": True}]}

Objects = list[dict[str, Any]]


def kustomize(folder: Path) -> Objects:
    done = subprocess.run([KUSTOMIZE, "build", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr  # Warnings, such as those of deprecated fields.
    return [each for each in yaml.safe_load_all(done.stdout) if each]


@pytest.fixture(scope="session")
def render(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Objects]:
    """Renders a kustomization that a user could write in a folder next to deploy/."""
    root = tmp_path_factory.mktemp("checkout")
    # Real files: kustomize follows no link out of its folder, and the inputs of a test are links.
    shutil.copytree(MANIFESTS, root / "deploy/kubernetes")

    @functools.cache
    def written(text: str) -> Objects:
        folder = root / f"user-{written.cache_info().misses}"
        folder.mkdir()
        (folder / "kustomization.yaml").write_text(text)
        (folder / "images.yaml").write_text(yaml.safe_dump(IMAGE_VOLUMES))
        (folder / "api-key").write_text("0123456789\n")
        return kustomize(folder)

    def render(**fields: Any) -> Objects:
        return copy.deepcopy(written(yaml.safe_dump(fields | {"configurations": ["images.yaml"]})))

    return render


def combination(name: str) -> dict[str, Any]:
    """A user's kustomization: "base", "gpu", either with "+COMPONENT", or "page N" as the operators' page has it."""
    if name.startswith("page "):
        return EXAMPLES[int(name.removeprefix("page "))]
    place, *components = name.split("+")
    return {
        "resources": ["../deploy/kubernetes/" + ("base" if place == "base" else f"overlays/{place}")],
        "components": [f"../deploy/kubernetes/components/{component}" for component in components],
    }


PLACES = ["base", *sorted(path.parent.name for path in MANIFESTS.glob("overlays/*/kustomization.yaml"))]
COMBINATIONS = [
    *PLACES,
    *(f"{place}+{component}" for place in PLACES for component in COMPONENTS),
    *("+".join([place, *COMPONENTS]) for place in PLACES),
    *(f"page {number}" for number in range(len(EXAMPLES))),
]


@pytest.fixture(params=COMBINATIONS)
def objects(request: pytest.FixtureRequest, render: Callable[..., Objects]) -> Objects:
    return render(**combination(request.param))


def only(objects: Objects, kind: str) -> dict[str, Any]:
    (found,) = (each for each in objects if each["kind"] == kind)
    return found


def pod(objects: Objects) -> dict[str, Any]:
    return only(objects, "Deployment")["spec"]["template"]["spec"]


def container(objects: Objects) -> dict[str, Any]:
    (found,) = pod(objects)["containers"]
    return found


def value(module: str, name: str) -> ast.expr:
    """What a module of the server assigns to a global name."""
    for statement in ast.parse((SERVER / module).read_text(encoding="utf-8")).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=found)], value=assigned) if found == name:
                return assigned
            case ast.AnnAssign(target=ast.Name(id=found), value=ast.expr() as assigned) if found == name:
                return assigned
    raise AssertionError(f"{module}: expected {name} = …, found none")


def test_there_are_overlays_components_and_examples() -> None:
    """A reader that finds nothing would let everything pass."""
    assert PLACES == ["base", "gpu"]
    assert COMPONENTS == ["autoscaling", "openshift", "pod-monitor"]
    assert len(EXAMPLES) == 2


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_every_object(objects: Objects, version: str) -> None:
    for each in objects:
        if each["apiVersion"] == "monitoring.coreos.com/v1":
            continue  # The Prometheus Operator's: Kubernetes has no schema of it.
        assert version.startswith(kubernetes_validate.validate(each, version, strict=True))


@pytest.mark.parametrize("version", VERSIONS)
def test_the_schemas_find_faults(render: Callable[..., Objects], version: str) -> None:
    deployment = only(render(**combination("base")), "Deployment")
    deployment["spec"]["template"]["spec"]["volumes"][0]["image"]["references"] = "one"
    with pytest.raises(kubernetes_validate.ValidationError, match="'references' was unexpected"):
        kubernetes_validate.validate(deployment, version, strict=True)


def test_the_namespace_enforces_the_profile_and_the_pods_comply(objects: Objects) -> None:
    namespace = only(objects, "Namespace")["metadata"]
    assert namespace["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert pod_security.violations(pod(objects)) == []
    # Beyond the profile.
    assert container(objects)["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod(objects)["automountServiceAccountToken"] is False
    assert {each["metadata"].get("namespace") for each in objects if each["kind"] != "Namespace"} == {namespace["name"]}


@pytest.mark.parametrize(
    ("path", "bad"),
    [
        (["hostNetwork"], True),
        (["volumes", 0], {"name": "model", "hostPath": {"path": "/"}}),
        (["securityContext", "runAsNonRoot"], False),
        (["securityContext", "runAsUser"], 0),
        (["securityContext", "seccompProfile"], {"type": "Unconfined"}),
        (["securityContext"], {"runAsNonRoot": True}),
        (["securityContext", "appArmorProfile"], {"type": "Unconfined"}),
        (["securityContext", "seLinuxOptions"], {"type": "spc_t"}),
        (["securityContext", "sysctls"], [{"name": "kernel.msgmax", "value": "1"}]),
        (["containers", 0, "securityContext"], {}),
        (["containers", 0, "securityContext", "privileged"], True),
        (["containers", 0, "securityContext", "allowPrivilegeEscalation"], True),
        (["containers", 0, "securityContext", "capabilities"], {"drop": ["NET_RAW"]}),
        (["containers", 0, "securityContext", "capabilities"], {"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
        (["containers", 0, "securityContext", "procMount"], "Unmasked"),
        (["containers", 0, "securityContext", "runAsNonRoot"], False),
        (["containers", 0, "ports", 0, "hostPort"], 8000),
        (["containers", 0, "livenessProbe", "httpGet", "host"], "one.example"),
    ],
    ids=str,
)
def test_a_pod_with_more_rights_is_a_violation(
    render: Callable[..., Objects], path: list[str | int], bad: object
) -> None:
    spec: Any = pod(render(**combination("base")))
    place = spec
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = bad
    assert pod_security.violations(spec)


def test_the_user_is_that_of_the_images(objects: Objects, request: pytest.FixtureRequest) -> None:
    lines = [line.split(":") for line in Path(os.environ["PASSWD"]).read_text().splitlines()]
    ((uid, gid),) = ((int(line[2]), int(line[3])) for line in lines if line[0] == "mlc")
    security = pod(objects)["securityContext"]
    given = (security.get("runAsUser"), security.get("runAsGroup"))
    # OpenShift chooses another.
    assert given == ((None, None) if "openshift" in request.node.name else (uid, gid))


def test_probes_ask_what_the_server_answers(objects: Objects) -> None:
    paths = ast.literal_eval(value("health.py", "PATHS"))
    serve = container(objects)
    ports = {port["name"]: port["containerPort"] for port in serve["ports"]}
    wanted = {"startupProbe": "/health/ready", "readinessProbe": "/health/ready", "livenessProbe": "/health/live"}
    for probe, path in wanted.items():
        assert path in paths
        assert serve[probe]["httpGet"] == {"path": path, "port": "http"}
        # Before that, the server itself gives up waiting for its engine.
        assert serve[probe]["timeoutSeconds"] > ast.literal_eval(value("health.py", "ANSWER_SECONDS"))
    assert ports == {"http": 8000}
    assert only(objects, "Service")["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": "http"}]


def test_there_is_time_to_drain(objects: Objects) -> None:
    server = ast.literal_eval(value("lifecycle.py", "SHUTDOWN_SECONDS"))
    hook = container(objects)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod(objects)["terminationGracePeriodSeconds"] >= hook + server + 5
    assert "--shutdown-timeout" not in container(objects)["args"]


def test_a_rollout_waits_while_a_model_may_load(objects: Objects) -> None:
    startup = container(objects)["startupProbe"]
    deadline = only(objects, "Deployment")["spec"]["progressDeadlineSeconds"]
    assert deadline > startup["periodSeconds"] * startup["failureThreshold"]


def test_the_key_is_read_from_the_secret(objects: Objects) -> None:
    serve = container(objects)
    command, place, *options = serve["args"]
    named = dict(zip(options[::2], options[1::2], strict=True))
    gpu = "nvidia.com/gpu" in serve["resources"]["limits"]
    assert (command, named.pop("--device")) == ("serve", "cuda" if gpu else "cpu")
    ((option, file),) = named.items()
    assert f'"{option}"' in (SERVER / "access.py").read_text(encoding="utf-8")
    mounts = {mount["name"]: mount for mount in serve["volumeMounts"]}
    assert (mounts["model"]["mountPath"], mounts["model"]["readOnly"]) == (place, True)
    assert os.path.split(file) == (mounts["api-key"]["mountPath"], "api-key")
    volumes = {volume["name"]: volume for volume in pod(objects)["volumes"]}
    assert volumes["api-key"]["secret"]["items"] == [{"key": "api-key", "path": "api-key"}]
    assert (mounts["tmp"]["mountPath"], "emptyDir" in volumes["tmp"]) == ("/tmp", True)


def test_images_are_published_under_these_names(objects: Objects, request: pytest.FixtureRequest) -> None:
    (model,) = (volume["image"]["reference"] for volume in pod(objects)["volumes"] if "image" in volume)
    gpu = "nvidia.com/gpu" in container(objects)["resources"]["limits"]
    if "page" in request.node.name:
        # The page's examples replace every image by a digest.
        assert all(re.search(r"/team/\w+@sha256:\w{64}$", image) for image in (model, container(objects)["image"]))
        return
    assert PUBLISHED[container(objects)["image"]] is gpu
    assert model == PLACEHOLDER if gpu else model in PUBLISHED


def test_the_pages_examples_name_the_images_and_their_secret(render: Callable[..., Objects]) -> None:
    for example in EXAMPLES:
        plain = render(**{"resources": example["resources"]})
        reference = next(volume["image"]["reference"] for volume in pod(plain)["volumes"] if "image" in volume)
        assert {image["name"] for image in example["images"]} == {container(plain)["image"], reference}
        objects = render(**example)
        (volume,) = (volume for volume in pod(objects)["volumes"] if "secret" in volume)
        # By a name with the hash of the key, so that a new key starts a rollout.
        assert volume["secret"]["secretName"] == only(objects, "Secret")["metadata"]["name"]
        assert re.fullmatch(r"mlc-llm-api-key-\w{10}", volume["secret"]["secretName"])


def test_another_namespace_holds_everything(render: Callable[..., Objects]) -> None:
    objects = render(**combination("+".join(["base", *COMPONENTS])) | {"namespace": "second"})
    assert only(objects, "Namespace")["metadata"]["name"] == "second"
    assert {each["metadata"]["namespace"] for each in objects if each["kind"] != "Namespace"} == {"second"}


def test_one_label_selects_the_pods(objects: Objects) -> None:
    labels = only(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        only(objects, "Service")["spec"]["selector"],
        only(objects, "Deployment")["spec"]["selector"]["matchLabels"],
        only(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        only(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        *(each["spec"]["selector"]["matchLabels"] for each in objects if each["kind"] == "PodMonitor"),
        *(each["labelSelector"]["matchLabels"] for each in pod(objects)["topologySpreadConstraints"]),
    ]
    assert all(selector == labels and labels for selector in selectors)


def test_the_network_policy_lets_requests_in_and_nothing_out(objects: Objects) -> None:
    policy = only(objects, "NetworkPolicy")["spec"]
    assert sorted(policy["policyTypes"]) == ["Egress", "Ingress"]
    assert "egress" not in policy
    assert policy["ingress"] == [{"ports": [{"port": "http"}]}]


@pytest.mark.parametrize("place", PLACES)
def test_the_autoscaler_reads_the_servers_queue_by_the_pages_rule(place: str, render: Callable[..., Objects]) -> None:
    objects = render(**combination(f"{place}+autoscaling"))
    autoscaler = only(objects, "HorizontalPodAutoscaler")["spec"]
    deployment = only(objects, "Deployment")
    assert autoscaler["scaleTargetRef"] == {
        "apiVersion": deployment["apiVersion"],
        "kind": "Deployment",
        "name": deployment["metadata"]["name"],
    }
    # Both would set the number of Pods.
    assert "replicas" not in deployment["spec"]
    gauge = value("metrics.py", "WAITING")
    assert isinstance(gauge, ast.Call) and ast.unparse(gauge.func) == "Gauge"
    name = ast.literal_eval(gauge.args[0])
    (rule,) = ADAPTER
    assert f'{{__name__="{name}",' in rule["seriesQuery"]
    renamed = re.sub(rule["name"]["matches"], rule["name"]["as"].replace("$1", r"\1"), name)
    (metric,) = autoscaler["metrics"]
    assert metric["pods"]["metric"]["name"] == renamed != name


@pytest.mark.parametrize("place", PLACES)
def test_prometheus_scrapes_the_port_of_the_server(place: str, render: Callable[..., Objects]) -> None:
    objects = render(**combination(f"{place}+pod-monitor"))
    (endpoint,) = only(objects, "PodMonitor")["spec"]["podMetricsEndpoints"]
    assert endpoint == {"port": container(objects)["ports"][0]["name"], "path": "/metrics"}
    assert '"/metrics"' in (SERVER / "metrics.py").read_text(encoding="utf-8")
