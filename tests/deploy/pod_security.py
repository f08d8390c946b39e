"""The rules of Kubernetes' Pod Security Standards, profile "restricted", for a Pod's specification.

https://kubernetes.io/docs/concepts/security/pod-security-standards/ has the rules, and k8s.io/pod-security-admission is
how an API server applies them. Rules for Windows are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def violations(spec: dict[str, Any]) -> list[str]:
    """What an API server would refuse, one line each."""
    return [*_pod(spec), *(line for container in containers(spec) for line in _container(spec, container))]


def containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """All containers of a Pod."""
    return [each for key in ("initContainers", "containers", "ephemeralContainers") for each in spec.get(key, [])]


def _pod(spec: dict[str, Any]) -> Iterator[str]:
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield f"{key} is true"
    for volume in spec.get("volumes", []):
        if kinds := volume.keys() - {"name"} - VOLUMES:
            yield f"volume {volume['name']}: {', '.join(kinds)}"
    security = spec.get("securityContext", {})
    if security.get("sysctls"):
        yield "sysctls are set"
    yield from _shared("the Pod", security)


def _container(spec: dict[str, Any], container: dict[str, Any]) -> Iterator[str]:
    name = container["name"]
    pod, own = spec.get("securityContext", {}), container.get("securityContext", {})
    if own.get("privileged"):
        yield f"{name}: privileged is true"
    if own.get("allowPrivilegeEscalation") is not False:
        yield f"{name}: allowPrivilegeEscalation is not false"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []):
        yield f"{name}: capabilities.drop has no ALL"
    if added := set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"{name}: capabilities.add has {', '.join(added)}"
    if own.get("procMount", "Default") != "Default":
        yield f"{name}: procMount is {own['procMount']}"
    if own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield f"{name}: runAsNonRoot is not true"
    if "seccompProfile" not in own and "seccompProfile" not in pod:
        yield f"{name}: seccompProfile is not set"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield f"{name}: a hostPort is set"
    handlers = [container[key] for key in ("startupProbe", "readinessProbe", "livenessProbe") if key in container]
    handlers += container.get("lifecycle", {}).values()
    if any(handler.get(key, {}).get("host") for handler in handlers for key in ("httpGet", "tcpSocket")):
        yield f"{name}: a probe or hook names a host"
    yield from _shared(name, own)


def _shared(name: str, security: dict[str, Any]) -> Iterator[str]:
    """Rules for what a Pod and its containers may both set."""
    if security.get("runAsUser") == 0:
        yield f"{name}: runAsUser is 0"
    if security.get("seccompProfile", {}).get("type", "RuntimeDefault") not in ("RuntimeDefault", "Localhost"):
        yield f"{name}: seccompProfile is {security['seccompProfile']['type']}"
    if security.get("appArmorProfile", {}).get("type", "RuntimeDefault") not in ("RuntimeDefault", "Localhost"):
        yield f"{name}: appArmorProfile is {security['appArmorProfile']['type']}"
    options = security.get("seLinuxOptions", {})
    types = (None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")
    if options.get("type") not in types or options.get("user") or options.get("role"):
        yield f"{name}: seLinuxOptions are set"
