"""buildbox-casd, the storage of //tools/remote, verifies what tools/remote/README.md says, and nothing else."""

from __future__ import annotations

import hashlib
import os
import pathlib
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator

import grpc
import pytest
from buildgrid._protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as api
from buildgrid._protos.build.bazel.remote.execution.v2 import remote_execution_pb2_grpc as services

BLOB = b"hello world" * 10


def digest(content: bytes) -> api.Digest:
    return api.Digest(hash=hashlib.sha256(content).hexdigest(), size_bytes=len(content))


class Storage:
    """A client of a running storage."""

    def __init__(self, folder: pathlib.Path, address: str) -> None:
        self.folder = folder
        channel = grpc.insecure_channel(address)
        self.blobs = services.ContentAddressableStorageStub(channel)
        self.results = services.ActionCacheStub(channel)

    def upload(self, content: bytes, name: api.Digest) -> int:
        """The status: 0 if the storage accepts the blob."""
        request = api.BatchUpdateBlobsRequest.Request(digest=name, data=content)
        return self.blobs.BatchUpdateBlobs(api.BatchUpdateBlobsRequest(requests=[request])).responses[0].status.code

    def result(self, action: api.Digest) -> str:
        try:
            self.results.GetActionResult(api.GetActionResultRequest(action_digest=action))
            return "found"
        except grpc.RpcError as error:
            return error.code().name


@pytest.fixture
def storage(tmp_path: pathlib.Path) -> Iterator[Storage]:
    with tempfile.TemporaryDirectory(dir="/tmp") as sockets:  # A socket's path must be short.
        command = [
            os.path.abspath(os.environ["REMOTE_BUILDBOX_CASD"]),
            f"--bind=unix:{sockets}/s",
            "--quota-high=10M",
            "--reserved=1M",
            str(tmp_path),
        ]
        process = subprocess.Popen(command, env={"PATH": "/usr/bin:/bin"})
        with socket.socket(socket.AF_UNIX) as client:
            while client.connect_ex(f"{sockets}/s"):
                assert process.poll() is None, "buildbox-casd does not start"
                time.sleep(0.1)
        yield Storage(tmp_path, f"unix:{sockets}/s")
        process.terminate()
        process.wait()


def test_a_blob_with_a_wrong_digest_is_refused(storage: Storage) -> None:
    assert storage.upload(BLOB, digest(BLOB)) == 0
    assert storage.upload(b"x" * 110, digest(b"y" * 110)) == grpc.StatusCode.INVALID_ARGUMENT.value[0]


def test_a_damaged_blob_is_sent_unverified(storage: Storage) -> None:
    """Bazel and the workers refuse it. If this test fails, storage.py may be obsolete."""
    name = digest(BLOB)
    storage.upload(BLOB, name)
    file = storage.folder / "cas/objects" / name.hash[:2] / name.hash[2:]
    file.chmod(0o644)
    file.write_bytes(b"J" + BLOB[1:])
    (read,) = storage.blobs.BatchReadBlobs(api.BatchReadBlobsRequest(digests=[name])).responses
    assert (read.status.code, read.data[:5]) == (0, b"Jello")


def test_a_result_counts_only_if_it_and_its_blobs_are_intact(storage: Storage) -> None:
    action = digest(b"an action")
    result = api.ActionResult(output_files=[api.OutputFile(path="out", digest=digest(BLOB))])
    storage.results.UpdateActionResult(api.UpdateActionResultRequest(action_digest=action, action_result=result))
    assert storage.result(action) == "NOT_FOUND"
    storage.upload(BLOB, digest(BLOB))
    assert storage.result(action) == "found"
    (file,) = (storage.folder / "actioncache/objects").glob("*/*")
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-20] + b"\xff" * 20)
    assert storage.result(action) == "NOT_FOUND"
