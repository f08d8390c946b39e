// Saves calls of cuBLAS in compiled models, on machines without cuBLAS. TVM's cuBLAS runtime (libtvm_cublas), which loads
// what is saved here, saves the same bytes, but does not load without NVIDIA's libraries.
#include <tvm/ffi/function.h>
#include <tvm/ffi/reflection/registry.h>

#include "tvm/src/runtime/extra/contrib/json/json_node.h"
#include "tvm/src/runtime/extra/contrib/json/json_runtime.h"

namespace mlc_bazel {
namespace {

using tvm::ffi::Array;
using tvm::ffi::Module;
using tvm::ffi::String;

class SavedCublasModule : public tvm::runtime::json::JSONRuntimeBase {
 public:
  using JSONRuntimeBase::JSONRuntimeBase;
  const char* kind() const override { return "cublas_json"; }
  void Init(const Array<tvm::runtime::Tensor>&) override {}
  void Run() override { TVM_FFI_THROW(InternalError) << "expected libtvm_cublas to run this"; }
};

TVM_FFI_STATIC_INIT_BLOCK() {
  tvm::ffi::reflection::GlobalDef().def(
      "runtime.CublasJSONRuntimeCreate", [](String symbol, String graph, Array<String> constants) {
        return Module(tvm::ffi::make_object<SavedCublasModule>(std::string(symbol), std::string(graph), constants));
      });
}

}  // namespace
}  // namespace mlc_bazel
