// What the TVM functions share.
#ifndef MLC_BAZEL_CPU_COMMON_H_
#define MLC_BAZEL_CPU_COMMON_H_

#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/error.h>

#include "src/cpu/kernels.h"
#include "src/cpu/threads.h"

namespace mlc_bazel {
namespace cpu {

// The kernels to use: those for the newest instruction set that this CPU has, unless use_kernels has changed it.
const Kernels& Chosen();

inline void* Data(tvm::ffi::TensorView tensor) {
  return static_cast<char*>(tensor.data_ptr()) + tensor.byte_offset();
}

inline bool IsFloat(DLDataType type, int bits) { return type.code == kDLFloat && type.bits == bits && type.lanes == 1; }

// A matrix in memory: all dimensions but the last are rows.
struct Matrix {
  Matrix(tvm::ffi::TensorView tensor, const char* what)
      : data(Data(tensor)), type(tensor.dtype()) {
    TVM_FFI_CHECK(tensor.ndim() >= 1 && tensor.IsContiguous() && tensor.device().device_type == kDLCPU, ValueError)
        << what << ": expected a contiguous tensor on the CPU with one dimension or more";
    for (int i = 0; i + 1 < tensor.ndim(); ++i) rows *= tensor.size(i);
    columns = tensor.size(tensor.ndim() - 1);
  }
  void* data;
  DLDataType type;
  int64_t rows = 1, columns = 0;
};

}  // namespace cpu
}  // namespace mlc_bazel

#endif  // MLC_BAZEL_CPU_COMMON_H_
