"""The runtime registers every function that mlc-llm and its generated code look up by name."""

import pytest

import tvm

# Names that mlc-llm looks up (at the pinned commit 79d603f085f50500e9509fa01785ffa7ecfaaa93):
# `git grep -hoE '"(vm\.builtin|runtime\.|ffi\.|tvm\.)[A-Za-z0-9_.]*"' -- cpp python` in its repository.
# Left out, because only other devices have them: runtime.disco.nvshmem.*, vm.builtin.cuda_graph.*, and the kernels of
# cutlass, fastertransformer, flashinfer, cublas and hipblas. Left out, because mlc-llm itself registers them: mlc.*
# and runtime.disco.create_socket_session_local_workers.
ASKED_BY_MLC_LLM = [
    "ffi.ModuleGetFunction",
    "ffi.SystemLib",
    "runtime.disco.RemoteSocketSession",
    "runtime.disco.ShardLoader",
    "runtime.disco.ShardLoaderLoadAll",
    "runtime.disco.SocketSession",
    "runtime.disco.WorkerProcess",
    "runtime.disco.bind_worker_to_cpu_core",
    "runtime.disco.create_process_pool",
    "runtime.disco.empty",
    "runtime.disco.load_vm_module",
    "runtime.disco.recv_from_prev_group",
    "runtime.disco.send_to_next_group",
    "tvm.codegen.llvm.GetDefaultTargetTriple",
    "vm.builtin.attention_kv_cache_commit_accepted_token_tree_nodes",
    "vm.builtin.attention_kv_cache_enable_sliding_window_for_seq",
    "vm.builtin.attention_kv_cache_get_num_available_pages",
    "vm.builtin.attention_kv_cache_get_total_sequence_length",
    "vm.builtin.kv_cache_disagg_mark_send",
    "vm.builtin.kv_cache_disagg_prepare_recv",
    "vm.builtin.kv_state_add_sequence",
    "vm.builtin.kv_state_begin_forward",
    "vm.builtin.kv_state_clear",
    "vm.builtin.kv_state_end_forward",
    "vm.builtin.kv_state_fork_sequence",
    "vm.builtin.kv_state_popn",
    "vm.builtin.kv_state_remove_sequence",
    "vm.builtin.memory_manager.clear",
    "vm.builtin.param_array_from_cache",
    "vm.builtin.param_array_from_cache_by_name",
    "vm.builtin.reshape",
    "vm.builtin.rnn_state_create",
    "vm.builtin.rnn_state_get",
    "vm.builtin.rnn_state_set",
    "vm.builtin.sample_top_p_from_prob",
    "vm.builtin.shape_of",
    "vm.builtin.tensor_cache.clear",
    "vm.builtin.tensor_cache.load",
    "vm.builtin.tuple_getitem",
]

# Names that TVM's code generation writes into model libraries (tvm.relax.frontend.nn.llm and src/relax).
CALLED_BY_GENERATED_CODE = [
    "tvm.contrib.sort.argsort",
    "tvm.contrib.sort.topk",
    "vm.builtin.alloc_shape_heap",
    "vm.builtin.alloc_storage",
    "vm.builtin.alloc_tensor",
    "vm.builtin.attention_kv_cache_append_mla_kv",
    "vm.builtin.attention_kv_cache_attention_with_fused_qkv",
    "vm.builtin.attention_kv_cache_cross_attention",
    "vm.builtin.attention_kv_cache_get_query_positions",
    "vm.builtin.attention_kv_cache_merge_attn_output_inplace",
    "vm.builtin.attention_kv_cache_self_attention",
    "vm.builtin.call_tir_dyn",
    "vm.builtin.check_func_info",
    "vm.builtin.check_prim_value_info",
    "vm.builtin.check_shape_info",
    "vm.builtin.check_tensor_info",
    "vm.builtin.check_tuple_info",
    "vm.builtin.copy",
    "vm.builtin.invoke_closure",
    "vm.builtin.make_closure",
    "vm.builtin.make_prim_value",
    "vm.builtin.make_shape",
    "vm.builtin.make_tuple",
    "vm.builtin.match_prim_value",
    "vm.builtin.match_shape",
    "vm.builtin.null_value",
    "vm.builtin.paged_attention_kv_cache_create",
    "vm.builtin.read_if_cond",
    "vm.builtin.tensor_to_shape",
    "vm.builtin.to_device",
    "vm.builtin.tuple_reset_item",
]

# Collectives that mlc-llm's multi-device models call on the session's backend.
COLLECTIVES = ["allgather", "allreduce", "broadcast_from_worker0", "gather_to_worker0", "scatter_from_worker0"]


@pytest.mark.parametrize("name", ASKED_BY_MLC_LLM)
def test_asked_by_mlc_llm(name: str) -> None:
    assert tvm.get_global_func(name, allow_missing=True) is not None, f"{name}: not registered"


@pytest.mark.parametrize("name", CALLED_BY_GENERATED_CODE)
def test_called_by_generated_code(name: str) -> None:
    assert tvm.get_global_func(name, allow_missing=True) is not None, f"{name}: not registered"


@pytest.mark.parametrize("name", COLLECTIVES)
def test_collective(name: str) -> None:
    assert tvm.get_global_func(f"runtime.disco.{name}", allow_missing=True) is not None, f"{name}: not registered"


def test_the_cpu_is_the_only_device_without_a_driver() -> None:
    assert tvm.cpu().exist
    assert not tvm.runtime.device("cuda", 7).exist


def test_system_library_is_reachable() -> None:
    assert tvm.get_global_func("ffi.SystemLib")().kind == "library"
