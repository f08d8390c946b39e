// What the TVM functions share.
#ifndef MLC_BAZEL_CPU_COMMON_H_
#define MLC_BAZEL_CPU_COMMON_H_

#include <tvm/ffi/container/tensor.h>
#include "src/cpu/kernels.h"
#include "src/cpu/threads.h"

namespace mlc_bazel {
namespace cpu {

// The kernels to use: those for the newest instruction set that this CPU has, unless use_kernels has changed it.
const Kernels& Chosen();

inline void* Data(tvm::ffi::TensorView tensor) {
  return static_cast<char*>(tensor.data_ptr()) + tensor.byte_offset();
}

}  // namespace cpu
}  // namespace mlc_bazel

#endif  // MLC_BAZEL_CPU_COMMON_H_
