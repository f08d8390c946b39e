"""The variables that a publishing tool gets: those it needs, so that no tool sees another's secrets."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping

# Where files are, how to reach the network, and whom to trust.
_EVERY_TOOL = (
    "HOME LANG LC_ALL PATH TERM TMPDIR TZ XDG_CACHE_HOME XDG_CONFIG_HOME XDG_RUNTIME_DIR XDG_STATE_HOME"
    " SSL_CERT_DIR SSL_CERT_FILE"
    " ALL_PROXY HTTPS_PROXY HTTP_PROXY NO_PROXY all_proxy https_proxy http_proxy no_proxy"
).split()

REGISTRY = ("DOCKER_CONFIG",)
SIGNING_KEY = ("COSIGN_PASSWORD", "COSIGN_PRIVATE_KEY")
# What cosign gets a workflow's identity token with.
IDENTITY = "ACTIONS_ID_TOKEN_REQUEST_TOKEN ACTIONS_ID_TOKEN_REQUEST_URL SIGSTORE_ID_TOKEN".split()
GITHUB = "GH_CONFIG_DIR GH_ENTERPRISE_TOKEN GH_HOST GH_TOKEN GITHUB_ENTERPRISE_TOKEN GITHUB_TOKEN".split()

# Where credential helpers of clouds and key rings look for their own credentials.
_HELPERS = ("AWS_", "AZURE_", "CLOUDSDK_", "DBUS_SESSION_BUS_ADDRESS", "GNUPGHOME", "GOOGLE_", "PASSWORD_STORE_")


def only(environment: Mapping[str, str], *names: str) -> dict[str, str]:
    """What every tool needs, and the variables named."""
    return {name: environment[name] for name in (*_EVERY_TOOL, *names) if name in environment}


def for_registry(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a registry's client.

    Args:
        environment: as `oci.credentials.docker_config` makes it. If its config.json names a credential helper,
          the helper's variables are passed too.
    """
    config = json.loads(pathlib.Path(environment["DOCKER_CONFIG"], "config.json").read_text(encoding="utf-8"))
    helped = "credHelpers" in config
    return only(environment, *REGISTRY, *(name for name in environment if helped and name.startswith(_HELPERS)))
