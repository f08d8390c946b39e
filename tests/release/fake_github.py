"""A release page on loopback: the part of GitHub's REST and GraphQL APIs that releases need, as documented, with faults
on demand.

gh speaks plain HTTP with one host only, github.localhost, which a proxy variable leads here: see
`FakeGitHub.environment`.

REST: https://docs.github.com/en/rest/releases (releases, assets), https://docs.github.com/en/rest/commits (tags).
"""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import json
import re
import threading
import urllib.parse
from typing import NoReturn

API, UPLOADS, STORE = (
    "http://api.github.localhost",
    "http://uploads.github.localhost",
    "http://objects.storage.localhost",
)
TOKEN = "token-of-the-test"
_TIME = "2000-01-01T00:00:00Z"


@dataclasses.dataclass
class Fault:
    """What goes wrong with requests that match.

    Attributes:
        request: regular expression of "METHOD path".
        status: the answer's status, or None to break the connection (an upload in its middle).
        message: the answer's message.
        times: how often.
    """

    request: str
    status: int | None
    message: str = ""
    times: int = 1_000


class FakeGitHub:
    """The host. `releases` is its state: the documented fields, and in each asset the content as `data`.

    Args:
        repository: OWNER/REPO, the only one.
        tags: tag → commit.
        digests: whether assets have the field `digest`, which hosts were late to get.
    """

    def __init__(self, repository: str, tags: dict[str, str], digests: bool = True) -> None:
        self.repository, self.tags, self.digests = repository, tags, digests
        self.releases: list[dict] = []
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.page_size = 100
        self._next_id = 0
        host = self

        class Handler(_Handler):
            github = host

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        # Asks often whether to end: each test waits for that.
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        """What a client is to be run with; gh is otherwise as on any machine."""
        return {
            "HTTP_PROXY": f"http://127.0.0.1:{self._http.server_port}",
            "GH_HOST": "github.localhost",
            "GH_TOKEN": TOKEN,
        }

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def writes(self) -> list[str]:
        """The requests that change something."""
        return [request for request in self.requests if not re.match("GET|HEAD|POST /graphql", request)]

    def new_id(self) -> int:
        self._next_id += 1
        return self._next_id

    def add_release(self, tag: str, files: dict[str, bytes], draft: bool = False) -> dict:
        """A release that is there before the test."""
        release = self.make_release({"tag_name": tag, "draft": draft})
        for name, data in files.items():
            self.add_asset(release, name, data)
        return release

    def make_release(self, fields: dict) -> dict:
        number = self.new_id()
        url = f"{API}/repos/{self.repository}/releases/{number}"
        release = {
            "url": url,
            "upload_url": f"{url.replace(API, UPLOADS)}/assets{{?name,label}}",
            "html_url": f"http://github.localhost/{self.repository}/releases/tag/{fields['tag_name']}",
            "id": number,
            "node_id": f"R{number}",
            "name": None,
            "body": None,
            "draft": False,
            "created_at": _TIME,
            "published_at": None,
            "assets": [],
        }
        release |= fields
        self.releases.insert(0, release)
        return release

    def add_asset(self, release: dict, name: str, data: bytes, state: str = "uploaded") -> dict:
        number = self.new_id()
        # "GitHub renames asset filenames that have special characters, non-alphanumeric characters, and leading or
        # trailing periods."
        name = re.sub(r"[^A-Za-z0-9_+@-]+", ".", name).strip(".")
        asset = {
            "url": f"{API}/repos/{self.repository}/releases/assets/{number}",
            "id": number,
            "node_id": f"A{number}",
            "name": name,
        }
        asset |= {"state": state, "size": len(data), "data": data, "created_at": _TIME, "updated_at": _TIME}
        if self.digests:
            asset["digest"] = "sha256:" + hashlib.sha256(data).hexdigest() if state == "uploaded" else None
        release["assets"].append(asset)
        return asset


class _Answer(Exception):
    """Ends a request with a status, a JSON body and headers."""

    def __init__(self, status: int, body: object = None, headers: dict[str, str] | None = None) -> None:
        self.status, self.body, self.headers = status, body, headers or {}


class _Handler(http.server.BaseHTTPRequestHandler):
    github: FakeGitHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _handle(self) -> None:
        # A proxy is asked for the whole URL.
        url = urllib.parse.urlsplit(self.path)
        self.url, self.query = f"{url.scheme}://{url.netloc}", dict(urllib.parse.parse_qsl(url.query))
        request = f"{self.command} {url.path}"
        self.github.requests.append(request)
        try:
            self._fail_on_demand(request)
            self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._serve_store(url.path)
            if self.headers.get("Authorization") != f"token {TOKEN}":
                raise _Answer(401, {"message": "Bad credentials"})
            if url.path == "/graphql":
                self._graphql()
            prefix = f"/repos/{self.github.repository}/"
            if url.path.startswith(prefix):
                self._rest(url.path.removeprefix(prefix))
            raise _Answer(404, {"message": "Not Found"})
        except _Answer as answer:
            body = (
                answer.body
                if isinstance(answer.body, bytes)
                else json.dumps(answer.body, default=lambda _: None).encode()
            )
            self.send_response(answer.status)
            for name, value in (
                {"Content-Type": "application/json", "Content-Length": str(len(body))} | answer.headers
            ).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):  # gh asks twice for a release and leaves the slower request.
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PATCH = do_DELETE = _handle

    def _fail_on_demand(self, request: str) -> None:
        for fault in self.github.faults:
            if fault.times and re.fullmatch(fault.request, request):
                fault.times -= 1
                if fault.status is None:
                    self._cut()
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                raise _Answer(fault.status, {"message": fault.message})

    def _cut(self) -> NoReturn:
        """Takes half of what is sent and hangs up; an upload leaves an asset with the state "starter"."""
        half = self.rfile.read(int(self.headers.get("Content-Length", 0)) // 2)
        match = re.fullmatch(r"/repos/[^/]+/[^/]+/releases/(\d+)/assets", urllib.parse.urlsplit(self.path).path)
        if match:
            self.github.add_asset(self._release(int(match[1])), self.query["name"], half, state="starter")
        self.close_connection = True
        self.connection.close()
        raise ConnectionResetError

    def _serve_store(self, path: str) -> None:
        if self.url == STORE:
            # As signed URLs do: a second way of authentication is an error.
            if "Authorization" in self.headers:
                raise _Answer(400, {"message": "Only one auth mechanism allowed"})
            raise _Answer(200, self._asset(int(path[1:]))[1]["data"], {"Content-Type": "application/octet-stream"})

    def _release(self, number: int) -> dict:
        for release in self.github.releases:
            if release["id"] == number:
                return release
        raise _Answer(404, {"message": "Not Found"})

    def _asset(self, number: int) -> tuple[dict, dict]:
        for release in self.github.releases:
            for asset in release["assets"]:
                if asset["id"] == number:
                    return release, asset
        raise _Answer(404, {"message": "Not Found"})

    def _graphql(self) -> None:
        asked = json.loads(self.body)
        tag = asked["variables"]["tagName"]
        # The two queries that gh makes, by their names.
        if "RepositoryReleaseByTag" in asked["query"]:
            of_tag = [release for release in self.github.releases if release["tag_name"] == tag]
            found = {"databaseId": of_tag[0]["id"], "isDraft": of_tag[0]["draft"]} if of_tag else None
            raise _Answer(200, {"data": {"repository": {"release": found}}})
        if "RepositoryFindRef" in asked["query"]:
            ref = {"id": tag} if tag.removeprefix("refs/tags/") in self.github.tags else None
            raise _Answer(200, {"data": {"repository": {"ref": ref}}})

    def _rest(self, path: str) -> None:
        if match := re.fullmatch(r"commits/tags/(.+)", path):
            if match[1] not in self.github.tags:
                raise _Answer(422, {"message": f"No commit found for SHA: tags/{match[1]}"})
            raise _Answer(200, {"sha": self.github.tags[match[1]]})
        if path == "releases":
            self._list() if self.command == "GET" else self._create()
        if match := re.fullmatch(r"releases/tags/(.+)", path):
            # Drafts have no tag yet, and are not found by it.
            published = [
                release for release in self.github.releases if release["tag_name"] == match[1] and not release["draft"]
            ]
            raise _Answer(200, published[0]) if published else _Answer(404, {"message": "Not Found"})
        if match := re.fullmatch(r"releases/(\d+)", path):
            release = self._release(int(match[1]))
            if self.command == "PATCH":
                release |= json.loads(self.body)
            raise _Answer(200, release)
        if match := re.fullmatch(r"releases/(\d+)/assets", path):
            self._upload(self._release(int(match[1])))
        if match := re.fullmatch(r"releases/assets/(\d+)", path):
            release, asset = self._asset(int(match[1]))
            if self.command == "DELETE":
                release["assets"].remove(asset)
                raise _Answer(204, b"")
            if self.headers.get("Accept") == "application/octet-stream":
                raise _Answer(302, b"", {"Location": f"{STORE}/{asset['id']}"})
            raise _Answer(200, asset)

    def _list(self) -> None:
        page, size = int(self.query.get("page", 1)), self.github.page_size
        shown = self.github.releases[(page - 1) * size : page * size]
        more = len(self.github.releases) > page * size
        following = (
            {"Link": f'<{API}/repos/{self.github.repository}/releases?page={page + 1}>; rel="next"'} if more else {}
        )
        raise _Answer(200, shown, following)

    def _create(self) -> None:
        fields = json.loads(self.body)
        if not fields["draft"] and any(release["tag_name"] == fields["tag_name"] for release in self.github.releases):
            raise _Answer(
                422, {"message": "Validation Failed", "errors": [{"code": "already_exists", "field": "tag_name"}]}
            )
        raise _Answer(201, self.github.make_release(fields))

    def _upload(self, release: dict) -> None:
        if self.url != UPLOADS:
            raise _Answer(404, {"message": "Not Found"})
        if any(asset["name"] == self.query["name"] for asset in release["assets"]):
            errors = [{"resource": "ReleaseAsset", "code": "already_exists", "field": "name"}]
            raise _Answer(422, {"message": "Validation Failed", "errors": errors})
        raise _Answer(201, self.github.add_asset(release, self.query["name"], self.body))
