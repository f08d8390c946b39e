// What the TVM functions share: the kernels of this CPU, and TVM's threads.
#ifndef MLC_BAZEL_CPU_COMMON_H_
#define MLC_BAZEL_CPU_COMMON_H_

#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/error.h>
#include <tvm/runtime/c_backend_api.h>

#include <atomic>
#include <cstdint>

#include "src/cpu/kernels.h"

namespace mlc_bazel {
namespace cpu {

// The kernels to use: those for the newest instruction set that this CPU has, unless use_kernels has changed it.
const Kernels& Chosen();

inline void* Data(tvm::ffi::TensorView tensor) {
  return static_cast<char*>(tensor.data_ptr()) + tensor.byte_offset();
}

// Calls work(index) for all indices below count, in TVM's threads, as each becomes free.
template <typename Work>
void Parallel(int64_t count, const Work& work) {
  struct Shared {
    const Work* work;
    int64_t count;
    std::atomic<int64_t> next{0};
  } shared;
  shared.work = &work;
  shared.count = count;
  FTVMParallelLambda run = [](int, TVMParallelGroupEnv*, void* data) {
    Shared& shared = *static_cast<Shared*>(data);
    for (int64_t index; (index = shared.next.fetch_add(1, std::memory_order_relaxed)) < shared.count;)
      (*shared.work)(index);
    return 0;
  };
  if (count == 1) {
    run(0, nullptr, &shared);
  } else {
    TVM_FFI_CHECK(TVMBackendParallelLaunch(run, &shared, 0) == 0, RuntimeError) << "TVM's threads failed";
  }
}

}  // namespace cpu
}  // namespace mlc_bazel

#endif  // MLC_BAZEL_CPU_COMMON_H_
