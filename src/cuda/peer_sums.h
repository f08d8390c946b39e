/* Sums over the GPUs of one host by one kernel, where they read and write each other's memory. In a step,
 * NCCL's take 6 µs longer (bench/gpu/README.md). Unlike TVM's kernels for this (cuda_ipc), it needs no memory of a kind,
 * and a CUDA graph may hold it.
 *
 * A part of TVM's nccl.cc (third_party/tvm/tvm.BUILD.bazel). Each worker, a thread, has its own.
 */
#pragma once

#include <cuda_runtime.h>
#include <nccl.h>

#include <cstdint>

namespace mlc_bazel {

/* Prepares the sums of this thread. All workers call it at once.
 *
 * Without an effect on any worker if one cannot reach another's memory or has no kernel for its GPU or another GPU, if
 * their number is not 2, 4 or 8, or if MLC_PEER_SUMS is 0 or NCCL_P2P_DISABLE is 1.
 *
 * Throws std::runtime_error if NCCL fails.
 */
void PreparePeerSums(int worker, int workers, ncclComm_t communicator, cudaStream_t stream);

/* Largest sum in bytes; 0 where NCCL makes them all. */
int64_t PeerSumsLimit();

/* Sums 16-bit floats over all workers, or returns false if NCCL has to. The answer must be the same on all workers:
 * it depends on the number of elements, and on whether tensors are aligned to 16 bytes, as TVM allocates them.
 *
 * Additions are in float32 and in the order of the workers, so all have the same bits.
 *
 * Throws std::runtime_error if the kernel does not start.
 */
bool SumOverPeers(const void* from, void* to, int64_t count, bool is_bfloat16, cudaStream_t stream);

}  // namespace mlc_bazel
