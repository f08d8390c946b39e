// What models compute, for one instruction set. kernels.cc is compiled once for each, and chosen.cc chooses one
// when it is loaded.
#ifndef MLC_BAZEL_CPU_KERNELS_H_
#define MLC_BAZEL_CPU_KERNELS_H_

#include <cstddef>
#include <cstdint>

namespace mlc_bazel {
namespace cpu {

// A group of weights has one scale: mlc-llm's q4f32_1 and q4f16_1.
constexpr int kGroup = 32;

// Of the four bits of a weight: the value is (bits - kZero) * scale.
constexpr int kZero = 7;

// Rows of activations as integers of 16 bits in two bytes, made by Kernels::quantize. Instructions multiply bytes; one byte
// alone, as in llama.cpp, would move logits by three percent. Groups follow each other, each with all rows.
struct Quantized {
  // [groups][rows][4][16]: the high bytes of the even positions of a group, those of the odd ones, and their low bytes,
  // with a sign.
  int8_t* values;
  float* scales;   // [groups][rows]
  int32_t* zeros;  // [groups][rows]: -kZero * the sum of the integers
};

template <typename T>
struct Attention {
  // [rows][group][size], rows `query_stride` apart. `out` has the same strides.
  const T* queries;
  T* out;
  int64_t query_stride, rows, group, size;
  // Of the log2 of each sum of exp2(score), [rows][group].
  float* lse;
  int64_t lse_stride;
  // One pointer to `size` numbers for each key and each value.
  const T* const* keys;
  const T* const* values;
  int64_t count;
  // Row r attends to the first min(count, visible + r * causal) of them.
  int64_t visible;
  bool causal;
  // Scores are products times this, with a factor of log2(e).
  float scale;
};

// What an attention to nothing has as lse.
constexpr float kNothing = -5e4f;

struct Kernels {
  const char* name;
  // Columns of a panel.
  int columns;

  // Makes integers of one row, x[groups * kGroup], of which `out` has `rows`.
  void (*quantize)(const float* x, int64_t groups, int64_t row, int64_t rows, Quantized out);

  // out[m * ldo + n] = sum over k of x[m, k] * weight[n, k], for all m < rows and begin <= n < end.
  // weights: [N, groups * 4] words of eight weights, the first in the lowest bits; scales: [N, groups].
  void (*multiply_q4_f32)(Quantized x, int64_t rows, const uint32_t* weights, const float* scales, int64_t groups,
                          int64_t begin, int64_t end, float* out, int64_t ldo);
  void (*multiply_q4_f16)(Quantized x, int64_t rows, const uint32_t* weights, const uint16_t* scales, int64_t groups,
                          int64_t begin, int64_t end, float* out, int64_t ldo);

  // The same with weights [N, depth].
  void (*dot_f32)(const float* x, int64_t rows, const float* weights, int64_t depth, int64_t begin, int64_t end,
                  float* out, int64_t ldo);
  void (*dot_f16)(const float* x, int64_t rows, const uint16_t* weights, int64_t depth, int64_t begin, int64_t end,
                  float* out, int64_t ldo);

  // Copies `count` rows of weights, at most `columns`, into panel[depth][columns]; the missing ones become 0.
  void (*pack_f32)(const float* weights, int64_t depth, int64_t count, float* panel);
  void (*pack_f16)(const uint16_t* weights, int64_t depth, int64_t count, float* panel);

  // out[m * ldo + n] = sum over k of x[m, k] * panel[k, n], for m < rows and n < count.
  void (*multiply)(const float* x, int64_t rows, const float* panel, int64_t depth, int64_t count, float* out,
                   int64_t ldo);

  // Attention of some query rows to the keys of one head of a sequence, with `group` query heads for each row.
  void (*attend_f32)(const Attention<float>& attention);
  void (*attend_f16)(const Attention<uint16_t>& attention);

  // Of one row. weight: [count].
  void (*rms_norm)(const float* x, const float* weight, int64_t count, float epsilon, float* out);

  // out = activation(gate) * up; gelu is its approximation by tanh.
  void (*silu_multiply)(const float* gate, const float* up, int64_t count, float* out);
  void (*gelu_multiply)(const float* gate, const float* up, int64_t count, float* out);

  // out = exp(x * factor) / the sum of them.
  void (*softmax)(const float* x, int64_t count, float factor, float* out);

  void (*from_f16)(const uint16_t* from, int64_t count, float* to);
  void (*to_f16)(const float* from, int64_t count, uint16_t* to);
};

#if defined(__x86_64__)
extern const Kernels kX86V2, kX86V3, kX86V4;
#elif defined(__aarch64__)
extern const Kernels kArmV8, kArmDot, kArmMatrix;
#else
#error "expected x86-64 or arm64"
#endif

}  // namespace cpu
}  // namespace mlc_bazel

#endif  // MLC_BAZEL_CPU_KERNELS_H_
