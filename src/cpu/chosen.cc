// Chooses the kernels for the CPU that runs.
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/error.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/reflection/registry.h>
#include <tvm/ffi/string.h>

#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

#include <string>
#include <vector>

#include "src/cpu/common.h"

namespace mlc_bazel {
namespace cpu {
namespace {

// All sets that this CPU has, the best one first.
std::vector<const Kernels*> Available() {
#if defined(__x86_64__)
  std::vector<const Kernels*> found;
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512vnni"))
      found.push_back(&kX86V4);
    found.push_back(&kX86V3);
  }
  if (__builtin_cpu_supports("sse4.2")) found.push_back(&kX86V2);
  TVM_FFI_CHECK(!found.empty(), RuntimeError) << "expected a CPU with SSE4.2 (x86-64-v2), found an older one";
  return found;
#else
  // Linux's HWCAP2_I8MM, which the C library's headers do not have yet.
  constexpr unsigned long kMatrix = 1 << 13;
  const bool has_dot = getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
  if (has_dot && (getauxval(AT_HWCAP2) & kMatrix)) return {&kArmMatrix, &kArmDot, &kArmV8};
  if (has_dot) return {&kArmDot, &kArmV8};
  return {&kArmV8};
#endif
}

const Kernels*& Current() {
  static const Kernels* current = Available().front();
  return current;
}

}  // namespace

const Kernels& Chosen() { return *Current(); }

namespace {

void Use(const tvm::ffi::String& name) {
  std::string names;
  for (const Kernels* each : Available()) {
    if (name == each->name) {
      Current() = each;
      return;
    }
    names += std::string(names.empty() ? "" : ", ") + each->name;
  }
  TVM_FFI_THROW(ValueError) << "expected one of " << names << ", found " << name;
}

TVM_FFI_STATIC_INIT_BLOCK() {
  tvm::ffi::reflection::GlobalDef()
      .def("mlc_bazel.cpu.kernels", [] { return tvm::ffi::String(Chosen().name); })
      .def("mlc_bazel.cpu.available_kernels",
           [] {
             tvm::ffi::Array<tvm::ffi::String> names;
             for (const Kernels* each : Available()) names.push_back(each->name);
             return names;
           })
      // For tests and comparisons, while nothing runs.
      .def("mlc_bazel.cpu.use_kernels", Use);
}

}  // namespace
}  // namespace cpu
}  // namespace mlc_bazel
