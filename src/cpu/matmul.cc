// Matrix products for the CPU that runs, as TVM functions: out = x * transpose(weights), with float32 sums.
//
// mlc_llm._mlc_bazel.cpu_kernels puts them into models instead of TVM's kernels. They choose their instruction set when
// they are loaded, so that one compiled model is fast on every CPU.
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/error.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/reflection/registry.h>

#include <algorithm>
#include <string>
#include <vector>

#include "src/cpu/common.h"

namespace mlc_bazel {
namespace cpu {
namespace {

using tvm::ffi::TensorView;

void CheckFloat(const Matrix& matrix, const char* what) {
  TVM_FFI_CHECK(IsFloat(matrix.type, 32) || IsFloat(matrix.type, 16), TypeError)
      << what << ": expected float32 or float16";
}

// Rows as float32: those of a matrix, or copies.
const float* AsFloats(const Kernels& kernels, const Matrix& matrix, std::vector<float>* copies) {
  if (IsFloat(matrix.type, 32)) return static_cast<const float*>(matrix.data);
  copies->resize(matrix.rows * matrix.columns);
  kernels.from_f16(static_cast<const uint16_t*>(matrix.data), matrix.rows * matrix.columns, copies->data());
  return copies->data();
}

// Where products are written: into `out`, or into a buffer that Finish converts.
class Output {
 public:
  Output(const Kernels& kernels, const Matrix& out) : kernels_(kernels), out_(out) {
    if (IsFloat(out.type, 16)) buffer_.resize(out.rows * out.columns);
  }
  float* data() { return buffer_.empty() ? static_cast<float*>(out_.data) : buffer_.data(); }
  void Finish() {
    if (!buffer_.empty()) kernels_.to_f16(buffer_.data(), buffer_.size(), static_cast<uint16_t*>(out_.data));
  }

 private:
  const Kernels& kernels_;
  const Matrix& out_;
  std::vector<float> buffer_;
};

void CheckShapes(const Matrix& x, int64_t depth, int64_t columns, const Matrix& out) {
  TVM_FFI_CHECK(x.columns == depth && out.rows == x.rows && out.columns == columns, ValueError)
      << "expected x [" << x.rows << ", " << depth << "] and out [" << x.rows << ", " << columns << "], found x ["
      << x.rows << ", " << x.columns << "] and out [" << out.rows << ", " << out.columns << "]";
}

void CheckWords(const Matrix& weights, const Matrix& scales) {
  TVM_FFI_CHECK(weights.type.code == kDLUInt && weights.type.bits == 32, TypeError) << "weights: expected uint32";
  TVM_FFI_CHECK(weights.rows == scales.rows && weights.columns == scales.columns * 4, ValueError)
      << "expected weights [" << scales.rows << ", " << scales.columns * 4 << "], found [" << weights.rows << ", "
      << weights.columns << "]";
}

// Columns of the result that a thread takes at a time: few enough to share evenly, a multiple of all kernels' blocks.
int64_t TaskColumns(int64_t columns) { return std::clamp<int64_t>(columns / 64 / 16 * 16, 16, 256); }

// Multiplies many rows: pack(begin, count, panel) copies weights as floats.
template <typename Pack>
void MultiplyPanels(const Kernels& kernels, const float* x, int64_t rows, int64_t depth, int64_t columns, float* out,
                    const Pack& pack) {
  double operations = static_cast<double>(rows) * depth * columns;
  Parallel((columns + kernels.columns - 1) / kernels.columns, operations, [&](int64_t task) {
    int64_t begin = task * kernels.columns, count = std::min<int64_t>(kernels.columns, columns - begin);
    static thread_local std::vector<float> panel;
    panel.resize(depth * kernels.columns);
    pack(begin, count, panel.data());
    kernels.multiply(x, rows, panel.data(), depth, count, out + begin, columns);
  });
}

// From so many rows on, panels cost less than reading the weights for each row.
constexpr int64_t kManyRows = 6;

// Bytes of integers that are multiplied at a time, so that they stay in a core's cache.
constexpr int64_t kCached = 1 << 19;

/*! out[..., N] = x[..., K] * transpose(weights[N, K / 8] of 4 bits with scales[N, K / 32]).
 *
 * x and out are float32 or float16, weights uint32, scales float32 or float16. x is rounded to 16 bits in groups of 32,
 * with a float32 scale.
 */
void MatmulQ4(TensorView x_tensor, TensorView weights_tensor, TensorView scales_tensor, TensorView out_tensor) {
  const Kernels& kernels = Chosen();
  Matrix x(x_tensor, "x"), weights(weights_tensor, "weights"), scales(scales_tensor, "scales"),
      out(out_tensor, "out");
  CheckFloat(x, "x");
  CheckFloat(scales, "scales");
  CheckFloat(out, "out");
  CheckWords(weights, scales);
  int64_t groups = scales.columns;
  CheckShapes(x, groups * kGroup, weights.rows, out);
  if (x.rows == 0 || weights.rows == 0) return;

  std::vector<float> copies;
  const float* rows = AsFloats(kernels, x, &copies);
  Output output(kernels, out);
  const uint32_t* words = static_cast<const uint32_t*>(weights.data);
  // Kept between calls: allocating takes longer than a small product.
  static thread_local std::vector<int8_t> values;
  static thread_local std::vector<float> row_scales;
  static thread_local std::vector<int32_t> zeros;
  const int64_t most = std::clamp<int64_t>(kCached / std::max<int64_t>(x.columns * 2, 1), 1, x.rows);
  values.resize(most * x.columns * 2);
  row_scales.resize(most * groups);
  zeros.resize(most * groups);
  for (int64_t first = 0; first < x.rows; first += most) {
    const int64_t count = std::min(most, x.rows - first);
    Quantized quantized{values.data(), row_scales.data(), zeros.data()};
    Parallel(count, static_cast<double>(count) * x.columns, [&](int64_t row) {
      kernels.quantize(rows + (first + row) * x.columns, groups, row, count, quantized);
    });
    float* result = output.data() + first * out.columns;
    double operations = static_cast<double>(count) * x.columns * weights.rows;
    const int64_t width = TaskColumns(weights.rows);
    Parallel((weights.rows + width - 1) / width, operations, [&](int64_t task) {
      int64_t begin = task * width, end = std::min(begin + width, weights.rows);
      if (IsFloat(scales.type, 32))
        kernels.multiply_q4_f32(quantized, count, words, static_cast<const float*>(scales.data), groups, begin, end,
                                result, out.columns);
      else
        kernels.multiply_q4_f16(quantized, count, words, static_cast<const uint16_t*>(scales.data), groups, begin, end,
                                result, out.columns);
    });
  }
  output.Finish();
}

/*! out[..., N] = x[..., K] * transpose(weights[N, K]); all are float32 or float16. */
void Matmul(TensorView x_tensor, TensorView weights_tensor, TensorView out_tensor) {
  const Kernels& kernels = Chosen();
  Matrix x(x_tensor, "x"), weights(weights_tensor, "weights"), out(out_tensor, "out");
  CheckFloat(x, "x");
  CheckFloat(weights, "weights");
  CheckFloat(out, "out");
  CheckShapes(x, weights.columns, weights.rows, out);
  if (x.rows == 0 || weights.rows == 0) return;

  int64_t depth = x.columns;
  std::vector<float> copies;
  const float* rows = AsFloats(kernels, x, &copies);
  Output output(kernels, out);
  float* result = output.data();
  auto multiply = [&](auto* data, auto dot, auto pack) {
    if (x.rows >= kManyRows) {
      MultiplyPanels(kernels, rows, x.rows, depth, weights.rows, result,
                     [&](int64_t begin, int64_t count, float* panel) {
                       pack(data + begin * depth, depth, count, panel);
                     });
      return;
    }
    double operations = static_cast<double>(x.rows) * x.columns * weights.rows;
    const int64_t width = TaskColumns(weights.rows);
    Parallel((weights.rows + width - 1) / width, operations, [&](int64_t task) {
      int64_t begin = task * width, end = std::min(begin + width, weights.rows);
      dot(rows, x.rows, data, depth, begin, end, result, out.columns);
    });
  };
  if (IsFloat(weights.type, 32))
    multiply(static_cast<const float*>(weights.data), kernels.dot_f32, kernels.pack_f32);
  else
    multiply(static_cast<const uint16_t*>(weights.data), kernels.dot_f16, kernels.pack_f16);
  output.Finish();
}

/*! out[i, K] = the row ids[i] of weights[N, K / 8] of 4 bits with scales[N, K / 32]; ids are int32. */
void TakeQ4(TensorView weights_tensor, TensorView scales_tensor, TensorView ids_tensor, TensorView out_tensor) {
  const Kernels& kernels = Chosen();
  Matrix weights(weights_tensor, "weights"), scales(scales_tensor, "scales"), ids(ids_tensor, "ids"),
      out(out_tensor, "out");
  CheckFloat(scales, "scales");
  CheckFloat(out, "out");
  CheckWords(weights, scales);
  TVM_FFI_CHECK(ids.type.code == kDLInt && ids.type.bits == 32, TypeError) << "ids: expected int32";
  int64_t groups = scales.columns, count = ids.rows * ids.columns;
  TVM_FFI_CHECK(out.rows == count && out.columns == groups * kGroup, ValueError)
      << "expected out [" << count << ", " << groups * kGroup << "], found [" << out.rows << ", " << out.columns
      << "]";
  Output output(kernels, out);
  float* result = output.data();
  std::vector<float> row_scales(groups);
  for (int64_t i = 0; i < count; ++i) {
    int64_t row = static_cast<const int32_t*>(ids.data)[i];
    TVM_FFI_CHECK(0 <= row && row < weights.rows, ValueError)
        << "ids: expected numbers from 0 to " << weights.rows - 1 << ", found " << row;
    if (IsFloat(scales.type, 32))
      std::copy_n(static_cast<const float*>(scales.data) + row * groups, groups, row_scales.data());
    else
      kernels.from_f16(static_cast<const uint16_t*>(scales.data) + row * groups, groups, row_scales.data());
    const uint32_t* words = static_cast<const uint32_t*>(weights.data) + row * groups * 4;
    for (int64_t k = 0; k < groups * kGroup; ++k)
      result[i * out.columns + k] =
          (static_cast<int>(words[k / 8] >> (k % 8 * 4) & 15) - kZero) * row_scales[k / kGroup];
  }
  output.Finish();
}

TVM_FFI_STATIC_INIT_BLOCK() {
  namespace refl = tvm::ffi::reflection;
  refl::GlobalDef()
      .def("mlc_bazel.cpu.matmul", Matmul)
      .def("mlc_bazel.cpu.matmul_q4", MatmulQ4)
      .def("mlc_bazel.cpu.take_q4", TakeQ4);
}

}  // namespace
}  // namespace cpu
}  // namespace mlc_bazel
