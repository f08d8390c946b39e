// What models compute, for the instruction set that this file is compiled for: its object is KERNELS, named KERNELS_NAME.
//
// Vectors are GCC's vector extensions, so that one source serves all; only what they cannot say is written in intrinsics.
#include "src/cpu/kernels.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>
#include <type_traits>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace mlc_bazel {
namespace cpu {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16, kRows = 12;
#elif defined(__AVX2__)
constexpr int kLanes = 8, kRows = 6;
#elif defined(__aarch64__)
// As many vector registers as AVX-512 has.
constexpr int kLanes = 4, kRows = 12;
#else
constexpr int kLanes = 4, kRows = 6;
#endif

typedef float Floats __attribute__((vector_size(4 * kLanes)));
// Not of the type's alignment, and of any type, as memory is.
typedef float UnalignedFloats __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));

inline Floats Load(const float* from) { return *reinterpret_cast<const UnalignedFloats*>(from); }
inline void Store(float* to, Floats value) { *reinterpret_cast<UnalignedFloats*>(to) = value; }
inline Floats Fill(float value) { return value - Floats{}; }

// Memory of a thread. It is no std::vector because the linker takes one copy of that for all instruction sets.
class Scratch {
 public:
  ~Scratch() { std::free(memory_); }
  template <typename T>
  T* Get(int64_t count) {
    const size_t size = count * sizeof(T);
    if (size > size_) {
      std::free(memory_);
      memory_ = std::malloc(size);
      size_ = memory_ ? size : 0;
      if (!memory_) throw std::bad_alloc();
    }
    return static_cast<T*>(memory_);
  }

 private:
  void* memory_ = nullptr;
  size_t size_ = 0;
};

// Of all lanes.

inline float Sum(Floats value) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps(__m512(value));
#elif defined(__aarch64__)
  return vaddvq_f32(float32x4_t(value));
#else
  float sum = 0;
  for (int i = 0; i < kLanes / 2; ++i) sum += value[i] + value[i + kLanes / 2];
  return sum;
#endif
}

inline float Most(Floats value) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps(__m512(value));
#elif defined(__aarch64__)
  return vmaxnmvq_f32(float32x4_t(value));
#else
  float most = value[0];
  for (int i = 1; i < kLanes; ++i) most = most < value[i] ? value[i] : most;
  return most;
#endif
}

// IEEE 754's 16-bit numbers.

inline float FromF16(uint16_t bits) {
#if defined(__F16C__)
  return _cvtsh_ss(bits);
#elif defined(__aarch64__)
  __fp16 value;
  std::memcpy(&value, &bits, 2);
  return value;
#else
  uint32_t sign = (bits & 0x8000u) << 16, exponent = (bits >> 10) & 31, fraction = bits & 0x3ff, word;
  float value;
  if (exponent == 0) {
    value = std::ldexp(static_cast<float>(fraction), -24);
    return sign ? -value : value;
  }
  word = sign | (exponent == 31 ? 255u << 23 : (exponent + 112) << 23) | fraction << 13;
  std::memcpy(&value, &word, 4);
  return value;
#endif
}

inline uint16_t ToF16(float value) {
#if defined(__F16C__)
  return _cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT);
#elif defined(__aarch64__)
  __fp16 half = value;
  uint16_t bits;
  std::memcpy(&bits, &half, 2);
  return bits;
#else
  uint32_t word;
  std::memcpy(&word, &value, 4);
  uint16_t sign = (word >> 16) & 0x8000;
  float size = std::fabs(value);
  if (size != size) return sign | 0x7e00;
  if (size >= 65520) return sign | 0x7c00;
  if (size < 6.103515625e-5f) return sign | static_cast<uint16_t>(std::nearbyint(std::ldexp(size, 24)));
  word &= 0x7fffffff;
  word += 0xfff + ((word >> 13) & 1);
  return sign | static_cast<uint16_t>((word - (112u << 23)) >> 13);
#endif
}

inline Floats Load(const uint16_t* from) {
#if defined(__AVX512F__)
  return Floats(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
#elif defined(__F16C__)
  return Floats(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
#elif defined(__aarch64__)
  return Floats(vcvt_f32_f16(vld1_f16(reinterpret_cast<const __fp16*>(from))));
#else
  Floats out;
  for (int i = 0; i < kLanes; ++i) out[i] = FromF16(from[i]);
  return out;
#endif
}

inline void Write(float* to, float value) { *to = value; }
inline void Write(uint16_t* to, float value) { *to = ToF16(value); }

inline float One(float value) { return value; }
inline float One(uint16_t value) { return FromF16(value); }

void FromF16s(const uint16_t* from, int64_t count, float* to) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) Store(to + i, Load(from + i));
  for (; i < count; ++i) to[i] = FromF16(from[i]);
}

void ToF16s(const float* from, int64_t count, uint16_t* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = ToF16(from[i]);
}

// Products with weights of 4 bits.
//
// A block has kLanes rows of weights, one for each lane. A lane adds the products of four neighbouring bytes at a time.

typedef uint32_t Words __attribute__((vector_size(4 * kLanes)));
typedef int32_t Ints __attribute__((vector_size(4 * kLanes)));

// Words 0 to 3 of kLanes rows: out[i] has word i of each. row(r) points to a row.
template <typename Row>
inline void LoadColumns(const Row& row, Words out[4]) {
#if defined(__SSE2__)
  auto load = [&](int r) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(row(r))); };
#endif
#if defined(__AVX512F__)
  __m512i rows[4];
  for (int i = 0; i < 4; ++i) {
    rows[i] = _mm512_inserti32x4(_mm512_castsi128_si512(load(i)), load(i + 4), 1);
    rows[i] = _mm512_inserti32x4(_mm512_inserti32x4(rows[i], load(i + 8), 2), load(i + 12), 3);
  }
  __m512i a = _mm512_unpacklo_epi32(rows[0], rows[1]), b = _mm512_unpackhi_epi32(rows[0], rows[1]);
  __m512i c = _mm512_unpacklo_epi32(rows[2], rows[3]), d = _mm512_unpackhi_epi32(rows[2], rows[3]);
  out[0] = Words(_mm512_unpacklo_epi64(a, c)), out[1] = Words(_mm512_unpackhi_epi64(a, c));
  out[2] = Words(_mm512_unpacklo_epi64(b, d)), out[3] = Words(_mm512_unpackhi_epi64(b, d));
#elif defined(__AVX2__)
  __m256i rows[4];
  for (int i = 0; i < 4; ++i) rows[i] = _mm256_inserti128_si256(_mm256_castsi128_si256(load(i)), load(i + 4), 1);
  __m256i a = _mm256_unpacklo_epi32(rows[0], rows[1]), b = _mm256_unpackhi_epi32(rows[0], rows[1]);
  __m256i c = _mm256_unpacklo_epi32(rows[2], rows[3]), d = _mm256_unpackhi_epi32(rows[2], rows[3]);
  out[0] = Words(_mm256_unpacklo_epi64(a, c)), out[1] = Words(_mm256_unpackhi_epi64(a, c));
  out[2] = Words(_mm256_unpacklo_epi64(b, d)), out[3] = Words(_mm256_unpackhi_epi64(b, d));
#elif defined(__SSE2__)
  __m128i a = _mm_unpacklo_epi32(load(0), load(1)), b = _mm_unpackhi_epi32(load(0), load(1));
  __m128i c = _mm_unpacklo_epi32(load(2), load(3)), d = _mm_unpackhi_epi32(load(2), load(3));
  out[0] = Words(_mm_unpacklo_epi64(a, c)), out[1] = Words(_mm_unpackhi_epi64(a, c));
  out[2] = Words(_mm_unpacklo_epi64(b, d)), out[3] = Words(_mm_unpackhi_epi64(b, d));
#elif defined(__aarch64__)
  auto load = [&](int r) { return vld1q_u32(reinterpret_cast<const uint32_t*>(row(r))); };
  auto low = [](uint32x4_t x, uint32x4_t y) { return Words(vzip1q_u64(uint64x2_t(x), uint64x2_t(y))); };
  auto high = [](uint32x4_t x, uint32x4_t y) { return Words(vzip2q_u64(uint64x2_t(x), uint64x2_t(y))); };
  uint32x4_t a = vzip1q_u32(load(0), load(1)), b = vzip2q_u32(load(0), load(1));
  uint32x4_t c = vzip1q_u32(load(2), load(3)), d = vzip2q_u32(load(2), load(3));
  out[0] = low(a, c), out[1] = high(a, c), out[2] = low(b, d), out[3] = high(b, d);
#else
  for (int lane = 0; lane < kLanes; ++lane) {
    uint32_t words[4];
    std::memcpy(words, row(lane), sizeof(words));
    for (int i = 0; i < 4; ++i) out[i][lane] = words[i];
  }
#endif
}

// The same of numbers 0 to 3, as float32. row(r) points to float32 or float16.
template <typename Row>
inline void LoadColumns(const Row& row, Floats out[4]) {
  if constexpr (sizeof(*row(0)) == 4) {
    Words words[4];
    LoadColumns(row, words);
    for (int i = 0; i < 4; ++i) out[i] = (Floats)words[i];
  } else {
    alignas(64) float rows[kLanes][4];
    for (int lane = 0; lane < kLanes; ++lane)
#if defined(__F16C__)
      _mm_store_ps(rows[lane], _mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(row(lane)))));
#elif defined(__aarch64__)
      vst1q_f32(rows[lane], vcvt_f32_f16(vld1_f16(reinterpret_cast<const __fp16*>(row(lane)))));
#else
      for (int i = 0; i < 4; ++i) rows[lane][i] = FromF16(row(lane)[i]);
#endif
    LoadColumns([&](int r) { return rows[r]; }, out);
  }
}

// Sums of products of a group: unsigned bytes of weights times signed bytes of activations.
class GroupSum {
 public:
  explicit GroupSum(Ints first) : first_(first) {}
  inline void Add(Words weights, const int8_t* values) {
    int32_t four;
    std::memcpy(&four, values, 4);
#if defined(__AVX512VNNI__)
    first_ = Ints(_mm512_dpbusd_epi32(__m512i(first_), __m512i(weights), _mm512_set1_epi32(four)));
#elif defined(__AVX2__)
    // Eight times at most 2 * 15 * 128: no overflow.
    pairs_ = _mm256_add_epi16(pairs_, _mm256_maddubs_epi16(__m256i(weights), _mm256_set1_epi32(four)));
#elif defined(__SSSE3__)
    pairs_ = _mm_add_epi16(pairs_, _mm_maddubs_epi16(__m128i(weights), _mm_set1_epi32(four)));
#elif defined(__ARM_FEATURE_DOTPROD)
    // Weights are less than 16, so they have the same bits with a sign.
    first_ = Ints(vdotq_s32(int32x4_t(first_), int8x16_t(weights), vreinterpretq_s8_s32(vdupq_n_s32(four))));
#elif defined(__aarch64__)
    // Eight times at most 15 * 128: no overflow.
    int8x16_t left = int8x16_t(weights), right = vreinterpretq_s8_s32(vdupq_n_s32(four));
    pairs_[0] = vmlal_s8(pairs_[0], vget_low_s8(left), vget_low_s8(right));
    pairs_[1] = vmlal_high_s8(pairs_[1], left, right);
#else
    for (int lane = 0; lane < kLanes; ++lane)
      for (int i = 0; i < 4; ++i) first_[lane] += static_cast<int>(weights[lane] >> 8 * i & 15) * values[i];
#endif
  }
  inline Ints Total() const {
#if defined(__AVX512VNNI__)
    return first_;
#elif defined(__AVX2__)
    return first_ + Ints(_mm256_madd_epi16(pairs_, _mm256_set1_epi16(1)));
#elif defined(__SSSE3__)
    return first_ + Ints(_mm_madd_epi16(pairs_, _mm_set1_epi16(1)));
#elif defined(__aarch64__) && !defined(__ARM_FEATURE_DOTPROD)
    return first_ + Ints(vpaddq_s32(vpaddlq_s16(pairs_[0]), vpaddlq_s16(pairs_[1])));
#else
    return first_;
#endif
  }

 private:
  Ints first_;
#if defined(__AVX512VNNI__)
#elif defined(__AVX2__)
  __m256i pairs_ = {};
#elif defined(__SSSE3__)
  __m128i pairs_ = {};
#elif defined(__aarch64__) && !defined(__ARM_FEATURE_DOTPROD)
  int16x8_t pairs_[2] = {};
#endif
};

// Of an integer: its high byte is rounded, and must fit too.
constexpr float kMostInteger = 127 * 256;

// Adding it to a number of at most 2^22 rounds to an integer, in the lowest bits.
constexpr float kRounding = 12582912.0f;

void Quantize(const float* x, int64_t groups, int64_t row, int64_t rows, Quantized out) {
  for (int64_t group = 0; group < groups; ++group) {
    Floats tops = {}, nothing = {};
    for (int i = 0; i < kGroup; i += kLanes) {
      Floats value = Load(x + group * kGroup + i), size = value < 0 ? -value : value;
      tops = tops < size ? size : tops;
      nothing += value * 0;
    }
    float top = Most(tops);
    // Below it the inverse would be infinite, and the products are too small to count.
    float inverse = top > 1e-30f ? kMostInteger / top : 0;
    int8_t high[kGroup], low[kGroup];
    uint32_t sum = 0;
    for (int i = 0; i < kGroup; i += kLanes) {
      Ints integers = (Ints)(Load(x + group * kGroup + i) * inverse + kRounding) - (Ints)Fill(kRounding);
      Ints highs = (integers + 128) >> 8;
      for (int lane = 0; lane < kLanes; ++lane) {
        high[i + lane] = static_cast<int8_t>(highs[lane]);
        low[i + lane] = static_cast<int8_t>(integers[lane] - 256 * highs[lane]);
        sum += integers[lane];
      }
    }
    int64_t place = group * rows + row;
    int8_t* values = out.values + place * 2 * kGroup;
    for (int i = 0; i < kGroup / 2; ++i) {
      values[i] = high[2 * i];
      values[kGroup / 2 + i] = high[2 * i + 1];
      values[kGroup + i] = low[2 * i];
      values[kGroup * 3 / 2 + i] = low[2 * i + 1];
    }
    out.zeros[place] = static_cast<int32_t>(0u - kZero * sum);
    // Not a number if the group has one that is not finite.
    out.scales[place] = top / kMostInteger + Sum(nothing);
  }
}

#if defined(__ARM_FEATURE_MATMUL_INT8)
// Adds to sums[2][kLanes] one group of a block times two rows, whose values are [4][16] bytes of each in `first` and
// `second`. An instruction multiplies eight bytes of two rows of weights with eight of two rows of values.
inline void AddTwoRows(const Words even[4], const Words odd[4], const int8_t* first, const int8_t* second,
                       const int32_t* zeros, Floats scale, const float* scales, float* sums) {
  int32x4_t high[2] = {}, low[2] = {};
  for (int half = 0; half < 2; ++half)
    for (int i = 0; i < 4; i += 2) {
      const Words* weights = half ? odd : even;
      uint32x4_t a = uint32x4_t(weights[i]), b = uint32x4_t(weights[i + 1]);
      int8x16_t upper = vreinterpretq_s8_u32(vzip1q_u32(a, b)), lower = vreinterpretq_s8_u32(vzip2q_u32(a, b));
      auto load = [&](int place) { return vcombine_s8(vld1_s8(first + place), vld1_s8(second + place)); };
      int place = half * kGroup / 2 + 4 * i;
      high[0] = vmmlaq_s32(high[0], upper, load(place)), high[1] = vmmlaq_s32(high[1], lower, load(place));
      low[0] = vmmlaq_s32(low[0], upper, load(kGroup + place)), low[1] = vmmlaq_s32(low[1], lower, load(kGroup + place));
    }
  for (int row = 0; row < 2; ++row) {
    auto of_row = [&](const int32x4_t* both) {
      return Ints(row ? vuzp2q_s32(both[0], both[1]) : vuzp1q_s32(both[0], both[1]));
    };
    Floats sum = __builtin_convertvector((of_row(high) << 8) + of_row(low) + zeros[row], Floats);
    Store(sums + row * kLanes, Load(sums + row * kLanes) + sum * (scale * scales[row]));
  }
}
#endif

// One group of a block, times all rows: adds to sums[rows][kLanes].
inline void AddGroup(Quantized x, int64_t rows, const uint32_t* weights, int64_t stride, Floats scale, float* sums) {
  Words words[4], even[4], odd[4];
  LoadColumns([=](int r) { return weights + r * stride; }, words);
  for (int i = 0; i < 4; ++i) {
    even[i] = words[i] & 0x0f0f0f0f;
    odd[i] = words[i] >> 4 & 0x0f0f0f0f;
  }
  int64_t row = 0;
#if defined(__ARM_FEATURE_MATMUL_INT8)
  for (; row + 2 <= rows; row += 2) {
    const int8_t* values = x.values + row * 2 * kGroup;
    AddTwoRows(even, odd, values, values + 2 * kGroup, x.zeros + row, scale, x.scales + row, sums + row * kLanes);
  }
#endif
  for (; row < rows; ++row) {
    const int8_t* values = x.values + row * 2 * kGroup;
    GroupSum high(Ints{}), low(x.zeros[row] - Ints{});
    for (int i = 0; i < 4; ++i) {
      high.Add(even[i], values + 4 * i);
      low.Add(even[i], values + kGroup + 4 * i);
      high.Add(odd[i], values + kGroup / 2 + 4 * i);
      low.Add(odd[i], values + kGroup * 3 / 2 + 4 * i);
    }
    Floats sum = __builtin_convertvector((high.Total() << 8) + low.Total(), Floats);
    Store(sums + row * kLanes, Load(sums + row * kLanes) + sum * (scale * x.scales[row]));
  }
}

template <typename Scale>
inline void MultiplyBlock(Quantized x, int64_t rows, const uint32_t* weights, const Scale* scales, int64_t groups,
                          float* sums) {
  std::fill_n(sums, rows * kLanes, 0.0f);
  for (int64_t first = 0; first < groups; first += 4) {
    Floats columns[4];
    // Four groups at a time, the last of them too.
    int64_t begin = std::max<int64_t>(std::min(first, groups - 4), 0), count = std::min<int64_t>(4, groups - first);
    if (groups >= 4) {
      LoadColumns([=](int r) { return scales + r * groups + begin; }, columns);
    } else {
      for (int i = 0; i < count; ++i)
        for (int lane = 0; lane < kLanes; ++lane) columns[i][lane] = One(scales[lane * groups + i]);
    }
    for (int64_t group = first; group < first + count; ++group) {
      // The next block, into the second cache: a third faster than what the CPU foresees by itself.
      const uint32_t* next = weights + kLanes * (groups + group) * 4;
      for (int word = 0; word < kLanes * 4; word += 16) __builtin_prefetch(next + word, 0, 2);
      Quantized part{x.values + group * rows * 2 * kGroup, x.scales + group * rows, x.zeros + group * rows};
      AddGroup(part, rows, weights + group * 4, groups * 4, columns[group - begin], sums);
    }
  }
}

template <typename Scale>
void MultiplyQ4(Quantized x, int64_t rows, const uint32_t* weights, const Scale* scales, int64_t groups, int64_t begin,
                int64_t end, float* out, int64_t ldo) {
  static thread_local Scratch sums_memory, weights_memory, scales_memory;
  float* sums = sums_memory.Get<float>(rows * kLanes);
  for (int64_t n = begin; n < end; n += kLanes) {
    int64_t count = std::min<int64_t>(kLanes, end - n);
    const uint32_t* block_weights = weights + n * groups * 4;
    const Scale* block_scales = scales + n * groups;
    if (count < kLanes) {
      // What is missing is 0.
      uint32_t* padded_weights = weights_memory.Get<uint32_t>(kLanes * groups * 4);
      Scale* padded_scales = scales_memory.Get<Scale>(kLanes * groups);
      std::fill_n(std::copy_n(block_weights, count * groups * 4, padded_weights), (kLanes - count) * groups * 4, 0);
      std::fill_n(std::copy_n(block_scales, count * groups, padded_scales), (kLanes - count) * groups, Scale{});
      block_weights = padded_weights;
      block_scales = padded_scales;
    }
    MultiplyBlock(x, rows, block_weights, block_scales, groups, sums);
    for (int64_t row = 0; row < rows; ++row) std::copy_n(sums + row * kLanes, count, out + row * ldo + n);
  }
}

// Products with floats.

template <int R, typename Weight>
inline void DotFloats(const float* x, const Weight* weights, int64_t depth, float* out) {
  Floats sums[R] = {};
  int64_t k = 0;
  for (; k + kLanes <= depth; k += kLanes) {
    Floats value = Load(x + k);
    for (int r = 0; r < R; ++r) sums[r] += value * Load(weights + r * depth + k);
  }
  for (int r = 0; r < R; ++r) {
    float sum = Sum(sums[r]);
    for (int64_t i = k; i < depth; ++i) sum += x[i] * One(weights[r * depth + i]);
    out[r] = sum;
  }
}

template <typename Weight>
void Dot(const float* x, int64_t rows, const Weight* weights, int64_t depth, int64_t begin, int64_t end, float* out,
         int64_t ldo) {
  int64_t n = begin;
  for (; n + 4 <= end; n += 4)
    for (int64_t m = 0; m < rows; ++m) DotFloats<4>(x + m * depth, weights + n * depth, depth, out + m * ldo + n);
  for (; n < end; ++n)
    for (int64_t m = 0; m < rows; ++m) DotFloats<1>(x + m * depth, weights + n * depth, depth, out + m * ldo + n);
}

constexpr int kColumns = 2 * kLanes;

template <typename Weight>
void Pack(const Weight* weights, int64_t depth, int64_t count, float* panel) {
  for (int64_t k = 0; k < depth; ++k)
    for (int n = 0; n < kColumns; ++n) panel[k * kColumns + n] = n < count ? One(weights[n * depth + k]) : 0;
}

template <int M>
inline void Tile(const float* x, const float* panel, int64_t depth, int64_t count, float* out, int64_t ldo) {
  Floats sums[M][2] = {};
  for (int64_t k = 0; k < depth; ++k) {
    Floats left = Load(panel + k * kColumns), right = Load(panel + k * kColumns + kLanes);
    for (int m = 0; m < M; ++m) {
      sums[m][0] += x[m * depth + k] * left;
      sums[m][1] += x[m * depth + k] * right;
    }
  }
  for (int m = 0; m < M; ++m) {
    if (count == kColumns) {
      Store(out + m * ldo, sums[m][0]);
      Store(out + m * ldo + kLanes, sums[m][1]);
    } else {
      for (int64_t n = 0; n < count; ++n) out[m * ldo + n] = sums[m][n / kLanes][n % kLanes];
    }
  }
}

template <int M>
void LastTile(const float* x, int64_t rows, const float* panel, int64_t depth, int64_t count, float* out,
              int64_t ldo) {
  if (rows == M)
    Tile<M>(x, panel, depth, count, out, ldo);
  else
    LastTile<M - 1>(x, rows, panel, depth, count, out, ldo);
}

template <>
void LastTile<0>(const float*, int64_t, const float*, int64_t, int64_t, float*, int64_t) {}

void Multiply(const float* x, int64_t rows, const float* panel, int64_t depth, int64_t count, float* out,
              int64_t ldo) {
  for (; rows >= kRows; rows -= kRows, x += kRows * depth, out += kRows * ldo)
    Tile<kRows>(x, panel, depth, count, out, ldo);
  LastTile<kRows - 1>(x, rows, panel, depth, count, out, ldo);
}

// Exponentials, and what needs them.

// 2 to the power of numbers that are at most 0, to 2e-7 of the value; 0 if that would be denormal.
inline Floats Exp2(Floats given) {
  const Floats low = Fill(-126);
  Floats x = given < low ? low : given;
  Floats rounded = x + Fill(kRounding);
  Ints integer = (Ints)rounded - (Ints)Fill(kRounding);
  Floats f = x - (rounded - Fill(kRounding));
  // Taylor's polynomial, for at most 1/2.
  Floats p = Fill(1.5353362e-4f);
  p = p * f + Fill(1.3398874e-3f);
  p = p * f + Fill(9.6184374e-3f);
  p = p * f + Fill(5.5503324e-2f);
  p = p * f + Fill(2.4022648e-1f);
  p = p * f + Fill(6.9314720e-1f);
  p = p * f + Fill(1.0f);
  Floats power = (Floats)((Words)p + ((Words)integer << 23));
  return given < low ? Floats{} : given == given ? power : given;
}

constexpr float kLog2E = 1.44269504088896f;

// 1 / (1 + exp(-x))
inline Floats Sigmoid(Floats x) {
  Floats small = Exp2((x < 0 ? x : -x) * kLog2E);
  return (x < 0 ? small : Fill(1)) / (small + 1);
}

// Calls work(i, load, store) for parts of `count` numbers, where load(from) and store(to, value) read and write a part of
// an array from number i on. The last part may be less than a vector.
template <typename Work>
inline void ForEach(int64_t count, const Work& work) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    work([=](const float* from) { return Load(from + i); }, [=](float* to, Floats value) { Store(to + i, value); });
  if (i < count)
    work(
        [=](const float* from) {
          Floats value = {};
          for (int64_t j = i; j < count; ++j) value[j - i] = from[j];
          return value;
        },
        [=](float* to, Floats value) {
          for (int64_t j = i; j < count; ++j) to[j] = value[j - i];
        });
}

void RmsNorm(const float* x, const float* weight, int64_t count, float epsilon, float* out) {
  Floats squares = {};
  ForEach(count, [&](auto load, auto) { squares += load(x) * load(x); });
  float factor = 1 / std::sqrt(Sum(squares) / count + epsilon);
  ForEach(count, [&](auto load, auto store) { store(out, load(x) * factor * load(weight)); });
}

void SiluMultiply(const float* gate, const float* up, int64_t count, float* out) {
  ForEach(count, [&](auto load, auto store) { store(out, load(gate) * Sigmoid(load(gate)) * load(up)); });
}

void GeluMultiply(const float* gate, const float* up, int64_t count, float* out) {
  // tanh(y) = 2 * sigmoid(2 * y) - 1, and the factor of the approximation is the root of 2 / pi.
  ForEach(count, [&](auto load, auto store) {
    Floats x = load(gate);
    store(out, x * Sigmoid((x + 0.044715f * x * x * x) * (2 * 0.7978845608f)) * load(up));
  });
}

void Softmax(const float* x, int64_t count, float factor, float* out) {
  Floats tops = Fill(x[0]);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) tops = tops < Load(x + i) ? Load(x + i) : tops;
  float top = Most(tops);
  for (; i < count; ++i) top = std::max(top, x[i]);
  ForEach(count, [&](auto load, auto store) { store(out, Exp2((load(x) - top) * factor * kLog2E)); });
  // In blocks: mlc-llm's sampler ends the process if probabilities add up to less than its random number.
  constexpr int64_t kBlocks = 16 * kLanes;
  double sum = 0;
  for (i = 0; i + kBlocks <= count; i += kBlocks) {
    Floats sums = {};
    for (int64_t j = 0; j < kBlocks; j += kLanes) sums += Load(out + i + j);
    sum += Sum(sums);
  }
  for (; i < count; ++i) sum += out[i];
  float inverse = static_cast<float>(1 / sum);
  ForEach(count, [&](auto load, auto store) { store(out, load(out) * inverse); });
}

// Attention, block by block of keys, with a running maximum (Flash Attention).

constexpr int kBlock = 16;

// scores[m][j] = queries[m] * key j, of keys transposed.
template <int M>
inline void ScoreRows(const float* queries, int64_t size, const float* transposed, float* scores) {
  constexpr int kVectors = kBlock / kLanes;
  Floats sums[M][kVectors] = {};
  for (int64_t k = 0; k < size; ++k)
    for (int v = 0; v < kVectors; ++v) {
      Floats key = Load(transposed + k * kBlock + v * kLanes);
      for (int m = 0; m < M; ++m) sums[m][v] += queries[m * size + k] * key;
    }
  for (int m = 0; m < M; ++m)
    for (int v = 0; v < kVectors; ++v) Store(scores + m * kBlock + v * kLanes, sums[m][v]);
}

// out[m] = out[m] * factors[m] + the sum of weights[m][j] * value j.
template <int M, typename T>
inline void AddRows(const float* weights, const T* const* values, int64_t count, int64_t size, const float* factors,
                    float* out) {
  // Vectors of a row at once, so that additions need not wait for each other.
  constexpr int kVectors = M > 2 ? 2 : 4;
  auto add = [&](int64_t k, auto vectors) __attribute__((always_inline)) {
    constexpr int V = decltype(vectors)::value;
    Floats sums[M][V];
    for (int m = 0; m < M; ++m)
      for (int v = 0; v < V; ++v) sums[m][v] = Load(out + m * size + k + v * kLanes) * factors[m];
    for (int64_t j = 0; j < count; ++j)
      for (int v = 0; v < V; ++v) {
        Floats value = Load(values[j] + k + v * kLanes);
        for (int m = 0; m < M; ++m) sums[m][v] += weights[m * kBlock + j] * value;
      }
    for (int m = 0; m < M; ++m)
      for (int v = 0; v < V; ++v) Store(out + m * size + k + v * kLanes, sums[m][v]);
  };
  int64_t k = 0;
  for (; k + kVectors * kLanes <= size; k += kVectors * kLanes) add(k, std::integral_constant<int, kVectors>());
  for (; k < size; k += kLanes) add(k, std::integral_constant<int, 1>());
}

template <typename T>
void Attend(const Attention<T>& a) {
  const int64_t all = a.rows * a.group, size = a.size;
  static thread_local Scratch memory;
  float* queries = memory.Get<float>(all * (2 * size + kBlock + 3) + kBlock * size);
  float* out = queries + all * size;
  float* scores = out + all * size;
  float* most = scores + all * kBlock;
  float* sum = most + all;
  float* factors = sum + all;
  float* keys = factors + all;
  for (int64_t r = 0; r < all; ++r) {
    const T* from = a.queries + r / a.group * a.query_stride + r % a.group * size;
    for (int64_t k = 0; k < size; k += kLanes) {
      Store(queries + r * size + k, Load(from + k) * a.scale);
      Store(out + r * size + k, Floats{});
    }
    most[r] = kNothing;
    sum[r] = 0;
  }
  int64_t end = a.causal ? std::min(a.count, a.visible + a.rows - 1) : a.count;
  for (int64_t first = 0; first < end; first += kBlock) {
    int64_t count = std::min<int64_t>(kBlock, end - first);
    if (all > 4) {
      // What is not there has the first key's numbers, and is not seen below.
      for (int64_t j = 0; j < kBlock; j += kLanes)
        for (int64_t k = 0; k < size; k += 4) {
          Floats columns[4];
          LoadColumns([&](int r) { return a.keys[first + (j + r < count ? j + r : 0)] + k; }, columns);
          for (int i = 0; i < 4; ++i) Store(keys + (k + i) * kBlock + j, columns[i]);
        }
      int64_t r = 0;
      for (; r + kRows <= all; r += kRows) ScoreRows<kRows>(queries + r * size, size, keys, scores + r * kBlock);
      for (; r < all; ++r) ScoreRows<1>(queries + r * size, size, keys, scores + r * kBlock);
    } else {
      for (int64_t j = 0; j < kBlock; ++j)
        for (int64_t r = 0; r < all; ++r) {
          Floats product = {};
          if (j < count)
            for (int64_t k = 0; k < size; k += kLanes)
              product += Load(queries + r * size + k) * Load(a.keys[first + j] + k);
          scores[r * kBlock + j] = Sum(product);
        }
    }
    for (int64_t r = 0; r < all; ++r) {
      float* row = scores + r * kBlock;
      int64_t seen = a.causal ? std::min(count, a.visible + r / a.group - first) : count;
      for (int64_t j = std::max<int64_t>(seen, 0); j < kBlock; ++j) row[j] = 2 * kNothing;
      float top = most[r];
      for (int v = 0; v < kBlock; v += kLanes) top = std::max(top, Most(Load(row + v)));
      Floats weights = {};
      for (int v = 0; v < kBlock; v += kLanes) {
        Floats weight = Exp2(Load(row + v) - top);
        for (int i = 0; i < kLanes; ++i)
          if (v + i >= seen) weight[i] = 0;
        Store(row + v, weight);
        weights += weight;
      }
      factors[r] = Exp2(Fill(most[r] - top))[0];
      sum[r] = sum[r] * factors[r] + Sum(weights);
      most[r] = top;
    }
    auto add = [&](int64_t r, auto rows) {
      AddRows<decltype(rows)::value>(scores + r * kBlock, a.values + first, count, size, factors + r, out + r * size);
    };
    int64_t r = 0;
    for (; r + 4 <= all; r += 4) add(r, std::integral_constant<int, 4>());
    if (r + 3 == all) add(r, std::integral_constant<int, 3>());
    if (r + 2 == all) add(r, std::integral_constant<int, 2>());
    if (r + 1 == all) add(r, std::integral_constant<int, 1>());
  }
  for (int64_t r = 0; r < all; ++r) {
    T* to = a.out + r / a.group * a.query_stride + r % a.group * size;
    float factor = sum[r] > 0 ? 1 / sum[r] : 0;
    for (int64_t k = 0; k < size; ++k) Write(to + k, out[r * size + k] * factor);
    a.lse[r / a.group * a.lse_stride + r % a.group] = sum[r] > 0 ? most[r] + std::log2(sum[r]) : kNothing;
  }
}

}  // namespace

extern const Kernels KERNELS = {
    KERNELS_NAME,
    kColumns,
    Quantize,
    MultiplyQ4<float>,
    MultiplyQ4<uint16_t>,
    Dot<float>,
    Dot<uint16_t>,
    Pack<float>,
    Pack<uint16_t>,
    Multiply,
    Attend<float>,
    Attend<uint16_t>,
    RmsNorm,
    SiluMultiply,
    GeluMultiply,
    Softmax,
    FromF16s,
    ToF16s,
};

}  // namespace cpu
}  // namespace mlc_bazel
