// Profiler ranges for the TVM runtime: a header that TVM's sources include but its wheel omits.
// Ranges compile to nothing, because NVTX itself comes with the CUDA build.
#ifndef TVM_SUPPORT_CUDA_NVTX_H_
#define TVM_SUPPORT_CUDA_NVTX_H_

#include <string>

namespace tvm {
namespace support {

class NVTXScopedRange {
 public:
  explicit NVTXScopedRange(const char*) {}
  explicit NVTXScopedRange(const std::string&) {}
  NVTXScopedRange(const NVTXScopedRange&) = delete;
  NVTXScopedRange& operator=(const NVTXScopedRange&) = delete;
};

}  // namespace support
}  // namespace tvm

#define TVM_NVTX_FUNC_SCOPE() ::tvm::support::NVTXScopedRange tvm_nvtx_func_scope(__func__)

#endif  // TVM_SUPPORT_CUDA_NVTX_H_
