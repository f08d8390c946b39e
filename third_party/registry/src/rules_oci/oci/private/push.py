"""Push an OCI image layout to a registry: blobs, then manifests by digest, then tags.

OCI distribution specification, section "Push". Credentials are those of `docker login` and `podman login`.
Standard library only.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import re
import ssl
import sys
import urllib.parse
from pathlib import Path

INDEX = "application/vnd.oci.image.index.v1+json"
CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


class PushError(Exception):
    """What the registry refused, or what is wrong with the arguments."""


def auth_files() -> list[Path]:
    """Where podman and docker keep credentials, the first that knows the registry wins."""
    variables = [
        ("REGISTRY_AUTH_FILE", ""),
        ("XDG_RUNTIME_DIR", "containers/auth.json"),
        ("DOCKER_CONFIG", "config.json"),
        ("HOME", ".docker/config.json"),
    ]
    return [Path(os.environ[name]) / rest for name, rest in variables if os.environ.get(name)]


def credentials(registry: str) -> str | None:
    """The base64 "user:password" for a registry, or None."""
    for path in auth_files():
        if path.is_file():
            entries = json.loads(path.read_text()).get("auths", {})
            for name in (registry, f"https://{registry}", f"https://{registry}/v1/"):
                if entries.get(name, {}).get("auth"):
                    return entries[name]["auth"]
    return None


class Registry:
    """One repository of a registry.

    Args:
        repository: e.g. "registry.example.com/team/image".
        insecure: use http; registries on this machine always get it, as with crane.
    """

    def __init__(self, repository: str, insecure: bool):
        self.host, slash, self.name = repository.partition("/")
        if not slash or not re.fullmatch(r"[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*(/[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*)*", self.name):
            raise PushError(f"--repository: expected REGISTRY/NAME without tag or digest, found {repository!r}")
        local = self.host.rpartition(":")[0] or self.host
        self.scheme = "http" if insecure or local in ("localhost", "127.0.0.1", "[::1]") else "https"
        self.tls = ssl.create_default_context() if self.scheme == "https" else None
        if self.tls and os.path.exists(CA_BUNDLE):
            # The toolchain's Python may look for certificates where only its own distribution has them.
            self.tls.load_verify_locations(CA_BUNDLE)
        self.basic = credentials(self.host)
        self.authorization = f"Basic {self.basic}" if self.basic else None

    def request(self, method: str, url: str, headers: dict[str, str] | None = None, body: Path | bytes | None = None) -> http.client.HTTPResponse:
        """Sends a request, with a token when the registry asks for one; returns the answer, read.

        Args:
            method: GET, HEAD, POST or PUT.
            url: absolute, or a path on the registry.
            headers: further headers.
            body: what to send; a path is streamed.
        """
        url = urllib.parse.urljoin(f"{self.scheme}://{self.host}", url)
        for attempt in range(2):
            response = self._send(method, url, headers or {}, body)
            if response.status != 401 or attempt or not self._authorize(response.headers.get("WWW-Authenticate", "")):
                break
        return response

    def _send(self, method: str, url: str, headers: dict[str, str], body: Path | bytes | None) -> http.client.HTTPResponse:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme == "https":
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(parts.netloc, timeout=300, context=self.tls)
        else:
            connection = http.client.HTTPConnection(parts.netloc, timeout=300)
        # Blobs may be stored elsewhere: only the registry itself gets to see the credentials.
        if self.authorization and parts.netloc == self.host:
            headers = {**headers, "Authorization": self.authorization}
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        try:
            if isinstance(body, Path):
                with body.open("rb") as stream:
                    connection.request(method, target, stream, {**headers, "Content-Length": str(body.stat().st_size)})
                    response = connection.getresponse()
            else:
                connection.request(method, target, body, {"Content-Length": str(len(body or b"")), **headers})
                response = connection.getresponse()
            response.content = response.read()  # type: ignore[attr-defined]
        except OSError as error:
            raise PushError(f"{parts.netloc}: {error}") from error
        finally:
            connection.close()
        return response

    def _authorize(self, challenge: str) -> bool:
        """Gets a token as the registry's challenge asks, https://distribution.github.io/distribution/spec/auth/token/."""
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() != "bearer":
            return False
        fields = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        query = urllib.parse.urlencode({key: fields[key] for key in ("service", "scope") if key in fields})
        headers = {"Authorization": f"Basic {self.basic}"} if self.basic else {}
        response = self._send("GET", f"{fields['realm']}?{query}", headers, None)
        if response.status != 200:
            raise PushError(f"{self.host}: no token for {self.name}: {self._reason(response)}; log in with `podman login {self.host}`")
        answer = json.loads(response.content)  # type: ignore[attr-defined]
        self.authorization = f"Bearer {answer.get('token') or answer['access_token']}"
        return True

    @staticmethod
    def _reason(response: http.client.HTTPResponse) -> str:
        return f"{response.status} {response.reason} {response.content[:500].decode(errors='replace')}".strip()  # type: ignore[attr-defined]

    def _expect(self, response: http.client.HTTPResponse, status: int, what: str) -> None:
        if response.status != status:
            hint = f"; log in with `podman login {self.host}`" if response.status in (401, 403) else ""
            raise PushError(f"{self.host}/{self.name}: {what}: expected {status}, found {self._reason(response)}{hint}")

    def push_blob(self, digest: str, path: Path) -> bool:
        """Uploads a blob unless the repository has it; returns whether it did."""
        if self.request("HEAD", f"/v2/{self.name}/blobs/{digest}").status == 200:
            return False
        started = self.request("POST", f"/v2/{self.name}/blobs/uploads/")
        self._expect(started, 202, f"starting the upload of {digest}")
        location = urllib.parse.urljoin(f"{self.scheme}://{self.host}", started.headers["Location"])
        location += ("&" if "?" in location else "?") + urllib.parse.urlencode({"digest": digest})
        self._expect(self.request("PUT", location, {"Content-Type": "application/octet-stream"}, path), 201, f"uploading {digest}")
        return True

    def push_manifest(self, reference: str, content: bytes, media_type: str) -> None:
        """Puts a manifest or index under a digest or a tag."""
        response = self.request("PUT", f"/v2/{self.name}/manifests/{reference}", {"Content-Type": media_type}, content)
        self._expect(response, 201, f"putting the manifest {reference}")


def push(layout: Path, registry: Registry, tags: list[str]) -> str:
    """Pushes everything that the layout's one manifest or index needs; tags come last, so that none is ever incomplete.

    Returns:
        The digest that was pushed.
    """

    def blob(digest: str) -> Path:
        return layout / "blobs" / digest.replace(":", "/")

    def push_tree(descriptor: dict) -> None:
        manifest = json.loads(blob(descriptor["digest"]).read_bytes())
        if descriptor["mediaType"] == INDEX:
            for child in manifest["manifests"]:
                push_tree(child)
        else:
            for part in [*manifest["layers"], manifest["config"]]:
                sent = registry.push_blob(part["digest"], blob(part["digest"]))
                print(f"{part['digest']} {'pushed' if sent else 'is there'} ({part['size']} bytes)", file=sys.stderr)
        registry.push_manifest(descriptor["digest"], blob(descriptor["digest"]).read_bytes(), descriptor["mediaType"])

    descriptor = json.loads((layout / "index.json").read_bytes())["manifests"][0]
    push_tree(descriptor)
    for tag in tags:
        registry.push_manifest(tag, blob(descriptor["digest"]).read_bytes(), descriptor["mediaType"])
    return descriptor["digest"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layout", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--repository_file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--remote_tags", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("-r", "--repository", help="REGISTRY/NAME to push to")
    parser.add_argument("-t", "--tag", action="append", default=[], help="tag to set, beside those of the target; may be repeated")
    parser.add_argument("--insecure", action="store_true", help="use http")
    arguments = parser.parse_args()
    repository = arguments.repository or (arguments.repository_file and arguments.repository_file.read_text().strip())
    if not repository:
        parser.error("no repository: pass --repository REGISTRY/NAME")
    tags = arguments.tag + (arguments.remote_tags.read_text().split() if arguments.remote_tags else [])
    for tag in tags:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", tag):
            parser.error(f"{tag!r} is no tag")
    try:
        digest = push(arguments.layout, Registry(repository, arguments.insecure), tags)
    except PushError as error:
        sys.exit(str(error))
    print(f"{repository}@{digest}")
    for tag in tags:
        print(f"{repository}:{tag}")


if __name__ == "__main__":
    main()
