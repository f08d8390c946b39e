"""Disco sessions and RPC distribute work, here on one machine."""

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import tvm.runtime.disco
import tvm_ffi
from tvm.runtime.disco import Session, ThreadedSession

import tvm
from tvm import rpc

# TVM 0.26 binds these names before it loads libtvm_runtime_extra, which registers them: bind them again.
tvm_ffi.init_ffi_api("runtime.disco", "tvm.runtime.disco._ffi_api")


@pytest.fixture
def session() -> Iterator[Session]:
    session = ThreadedSession(num_workers=3)
    yield session
    session.shutdown()


def test_each_worker_knows_who_it_is(session: Session) -> None:
    assert session.num_workers == 3
    identity = session.get_global_func("runtime.disco.worker_id")()
    assert [list(identity.debug_get_from_remote(worker)) for worker in range(3)] == [[0], [1], [2]]


def test_every_worker_calls_the_function(session: Session) -> None:
    tvm.register_global_func("tests.sessions.add", lambda a, b: a + b, override=True)
    result = session.get_global_func("tests.sessions.add")(40, 2)
    assert [result.debug_get_from_remote(worker) for worker in range(3)] == [42] * 3


def test_tensors_go_to_one_worker_and_come_back(session: Session) -> None:
    data = np.arange(6, dtype="float32").reshape(2, 3)
    remote = session.empty((2, 3), "float32")
    for worker in range(3):
        remote.debug_copy_from(worker, data + worker)
    for worker in range(3):
        np.testing.assert_array_equal(remote.debug_get_from_remote(worker).numpy(), data + worker)
    host = tvm.runtime.tensor(np.zeros((2, 3), "float32"))
    session.copy_from_worker_0(host, remote)
    session.sync_worker_0()
    np.testing.assert_array_equal(host.numpy(), data)


# An RPC server for one connection, with the handshake of tvm.rpc.server but without the packages of its process pool.
SERVER = """
import socket, struct, sys
sys.path[:] = {path!r}
import tvm
from tvm.rpc import base, server
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
connection, _ = listener.accept()
magic, size = struct.unpack("<ii", connection.recv(8, socket.MSG_WAITALL))
assert magic == base.RPC_MAGIC
assert connection.recv(size, socket.MSG_WAITALL) == b"client:tests"
connection.sendall(struct.pack("<ii", base.RPC_CODE_SUCCESS, len(b"server:tests")) + b"server:tests")
server._serve_loop(connection, None, None)
"""


@pytest.fixture
def remote() -> Iterator[rpc.RPCSession]:
    server = subprocess.Popen([sys.executable, "-c", SERVER.format(path=sys.path)], stdout=subprocess.PIPE, text=True)
    with server:
        assert server.stdout
        yield rpc.connect("127.0.0.1", int(server.stdout.readline()), key="tests")
        server.terminate()


@pytest.mark.parametrize("local", [True, False], ids=["in process", "over a socket"])
def test_remote_calls_tensors_and_errors(local: bool, request: pytest.FixtureRequest) -> None:
    session = rpc.LocalSession() if local else request.getfixturevalue("remote")
    assert session.get_function("rpc.test.addone")(10) == 11
    assert session.get_function("rpc.test.strcat")("abc", 11) == "abc:11"
    data = np.arange(1000, dtype="float32")
    device = session.cpu(0)
    tensor = tvm.runtime.tensor(data, device)
    np.testing.assert_array_equal(tensor.numpy(), data)
    with pytest.raises((ValueError, tvm.error.RPCError), match="made on purpose"):
        session.get_function("rpc.test.except")("made on purpose")
    assert session.get_function("rpc.test.addone")(1) == 2


def test_files_go_to_the_remote_and_back(remote: rpc.RPCSession) -> None:
    blob = bytearray(np.random.default_rng(0).bytes(100_000))
    remote.upload(blob, "blob.bin")
    assert remote.download("blob.bin") == blob
