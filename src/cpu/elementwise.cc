// Normalization, activations and probabilities for the CPU that runs, as TVM functions, in float32. TVM's kernels call
// libm for each number, on one thread.
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/error.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/reflection/registry.h>

#include <algorithm>

#include "src/cpu/common.h"

namespace mlc_bazel {
namespace cpu {
namespace {

using tvm::ffi::TensorView;

// Float32, as everything here.
struct Floats : Matrix {
  Floats(TensorView tensor, const char* what) : Matrix(tensor, what) {
    TVM_FFI_CHECK(IsFloat(type, 32), TypeError) << what << ": expected float32";
  }
  float* row(int64_t index) const { return static_cast<float*>(data) + index * columns; }
};

void CheckShape(const Floats& out, int64_t rows, int64_t columns) {
  TVM_FFI_CHECK(out.rows == rows && out.columns == columns, ValueError)
      << "expected out [" << rows << ", " << columns << "], found [" << out.rows << ", " << out.columns << "]";
}

// Calls work(row) for each row, in threads if that is worth it. A number costs about as much as ten products.
template <typename Work>
void ForRows(const Floats& out, const Work& work) {
  Parallel(out.rows, 10.0 * out.rows * out.columns, work);
}

/*! out[..., N] = x[..., N] / sqrt(mean of squares of the row + epsilon) * weight[N]. */
void RmsNorm(TensorView x_tensor, TensorView weight_tensor, double epsilon, TensorView out_tensor) {
  Floats x(x_tensor, "x"), weight(weight_tensor, "weight"), out(out_tensor, "out");
  TVM_FFI_CHECK(weight.rows == 1 && weight.columns == x.columns, ValueError)
      << "expected weight [" << x.columns << "], found [" << weight.rows << ", " << weight.columns << "]";
  CheckShape(out, x.rows, x.columns);
  const Kernels& kernels = Chosen();
  ForRows(out, [&](int64_t row) {
    kernels.rms_norm(x.row(row), weight.row(0), x.columns, static_cast<float>(epsilon), out.row(row));
  });
}

void Gated(void (*Kernels::*kernel)(const float*, const float*, int64_t, float*), TensorView x_tensor,
           TensorView out_tensor) {
  Floats x(x_tensor, "x"), out(out_tensor, "out");
  CheckShape(out, x.rows, x.columns / 2);
  TVM_FFI_CHECK(x.columns % 2 == 0, ValueError) << "expected two halves of columns, found " << x.columns;
  auto compute = Chosen().*kernel;
  ForRows(out, [&](int64_t row) { compute(x.row(row), x.row(row) + out.columns, out.columns, out.row(row)); });
}

/*! out[..., N] = silu(x[..., :N]) * x[..., N:]. */
void SiluMultiply(TensorView x, TensorView out) { Gated(&Kernels::silu_multiply, x, out); }

/*! out[..., N] = gelu(x[..., :N]) * x[..., N:], with the approximation by tanh. */
void GeluMultiply(TensorView x, TensorView out) { Gated(&Kernels::gelu_multiply, x, out); }

// A temperature of 0, as mlc-llm's kernels have it.
constexpr float kNoTemperature = 1e-5f;

/*! Probabilities out[B, ..., N] of logits[B, ..., N] at temperature[B]; those behind the first `active` columns are 0.
 *
 * At a temperature of 0, the largest have them all.
 */
void Softmax(TensorView logits_tensor, TensorView temperature_tensor, int64_t active, TensorView out_tensor) {
  Floats logits(logits_tensor, "logits"), temperature(temperature_tensor, "temperature"), out(out_tensor, "out");
  CheckShape(out, logits.rows, logits.columns);
  TVM_FFI_CHECK(temperature.rows == 1 && temperature.columns == logits.rows, ValueError)
      << "expected temperature [" << logits.rows << "], found [" << temperature.rows << ", " << temperature.columns
      << "]";
  TVM_FFI_CHECK(0 < active && active <= logits.columns, ValueError)
      << "active: expected 1 to " << logits.columns << ", found " << active;
  const Kernels& kernels = Chosen();
  ForRows(out, [&](int64_t row) {
    const float *from = logits.row(row), degrees = temperature.row(0)[row];
    float* to = out.row(row);
    if (degrees > kNoTemperature) {
      kernels.softmax(from, active, 1 / degrees, to);
    } else {
      float top = *std::max_element(from, from + active), share = 1.0f / std::count(from, from + active, top);
      for (int64_t i = 0; i < active; ++i) to[i] = from[i] == top ? share : 0;
    }
    std::fill(to + active, to + out.columns, 0.0f);
  });
}

TVM_FFI_STATIC_INIT_BLOCK() {
  namespace refl = tvm::ffi::reflection;
  refl::GlobalDef()
      .def("mlc_bazel.cpu.rms_norm", RmsNorm)
      .def("mlc_bazel.cpu.silu_multiply", SiluMultiply)
      .def("mlc_bazel.cpu.gelu_multiply", GeluMultiply)
      .def("mlc_bazel.cpu.softmax", Softmax);
}

}  // namespace
}  // namespace cpu
}  // namespace mlc_bazel
