// Matrix products, for the instruction set that this file is compiled for: its object is KERNELS, named KERNELS_NAME.
//
// Vectors are GCC's vector extensions, so that one source serves all; only what they cannot say is written in intrinsics.
#include "src/cpu/kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace mlc_bazel {
namespace cpu {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16, kGroups = 2, kRows = 12;
#elif defined(__AVX2__)
constexpr int kLanes = 8, kGroups = 1, kRows = 6;
#else
constexpr int kLanes = 4, kGroups = 1, kRows = 6;
#endif

typedef float Floats __attribute__((vector_size(4 * kLanes)));
// Not of the type's alignment, and of any type, as memory is.
typedef float UnalignedFloats __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));

inline Floats Load(const float* from) { return *reinterpret_cast<const UnalignedFloats*>(from); }
inline void Store(float* to, Floats value) { *reinterpret_cast<UnalignedFloats*>(to) = value; }
inline Floats Fill(float value) { return value - Floats{}; }

inline float Sum(Floats value) {
  float sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += value[i];
  return sum;
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
// A step has kGroups groups. Half of a vector has the even positions of all of them, the other half the odd ones, as the
// low and high halves of the weights' bytes are. A lane adds four products of neighbouring bytes.

constexpr int kBytes = kGroups * kGroup, kSums = kBytes / 4;

typedef int8_t Bytes __attribute__((vector_size(kBytes)));
typedef int32_t Ints __attribute__((vector_size(4 * kSums)));
typedef float Scales __attribute__((vector_size(4 * kSums)));
typedef int8_t UnalignedBytes __attribute__((vector_size(kBytes), aligned(1), may_alias));
typedef int32_t UnalignedInts __attribute__((vector_size(4 * kSums), aligned(4), may_alias));
typedef float UnalignedScales __attribute__((vector_size(4 * kSums), aligned(4), may_alias));

// sum + the products of unsigned weights and signed values, four by four.
inline Ints Dot(Ints sum, Bytes weights, Bytes values) {
#if defined(__AVX512VNNI__)
  return Ints(_mm512_dpbusd_epi32(__m512i(sum), __m512i(weights), __m512i(values)));
#elif defined(__AVX2__)
  // At most 2 * 15 * 127: no saturation.
  __m256i pairs = _mm256_maddubs_epi16(__m256i(weights), __m256i(values));
  return sum + Ints(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#elif defined(__SSSE3__)
  union {
    Bytes all;
    __m128i half[2];
  } w = {weights}, v = {values};
  union {
    __m128i half[2];
    Ints all;
  } out;
  for (int i = 0; i < 2; ++i) out.half[i] = _mm_madd_epi16(_mm_maddubs_epi16(w.half[i], v.half[i]), _mm_set1_epi16(1));
  return sum + out.all;
#elif defined(__ARM_FEATURE_DOTPROD)
  union {
    Bytes all;
    int8x16_t half[2];
  } w = {weights}, v = {values};
  union {
    Ints all;
    int32x4_t half[2];
  } out = {sum};
  for (int i = 0; i < 2; ++i) out.half[i] = vdotq_s32(out.half[i], w.half[i], v.half[i]);
  return out.all;
#else
  for (int i = 0; i < kSums; ++i)
    for (int j = 0; j < 4; ++j) sum[i] += weights[4 * i + j] * values[4 * i + j];
  return sum;
#endif
}

// The weights of a step, of which `groups` exist.
inline Bytes Unpack(const uint32_t* words, int groups) {
#if defined(__AVX512F__)
  __m256i both = groups == 2 ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words))
                             : _mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(words)));
  if (groups < 2) both = _mm256_inserti128_si256(_mm256_setzero_si256(), _mm256_castsi256_si128(both), 0);
  const __m256i mask = _mm256_set1_epi8(15);
  __m256i low = _mm256_and_si256(both, mask), high = _mm256_and_si256(_mm256_srli_epi16(both, 4), mask);
  return Bytes(_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1));
#elif defined(__AVX2__)
  __m128i both = _mm_loadu_si128(reinterpret_cast<const __m128i*>(words));
  __m256i bytes = _mm256_inserti128_si256(_mm256_castsi128_si256(both), _mm_srli_epi16(both, 4), 1);
  return Bytes(_mm256_and_si256(bytes, _mm256_set1_epi8(15)));
#else
  typedef uint8_t Half __attribute__((vector_size(16)));
  union {
    Half half[2];
    Bytes all;
  } out;
  Half both;
  std::memcpy(&both, words, 16);
  out.half[0] = both & 15;
  out.half[1] = both >> 4;
  return out.all;
#endif
}

// The scale of each lane's group.
template <typename Scale>
inline Scales Spread(const Scale* scales, int groups) {
#if defined(__AVX512F__)
  const __m512i which = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1);
  __m128 both = _mm_setr_ps(One(scales[0]), groups == 2 ? One(scales[1]) : 0, 0, 0);
  return Scales(_mm512_permutexvar_ps(which, _mm512_castps128_ps512(both)));
#else
  return One(scales[0]) - Scales{};
#endif
}

// Of an integer: its high byte is rounded, and must fit too.
constexpr float kMostInteger = 127 * 256;

void Quantize(const float* x, int64_t groups, Quantized out) {
  for (int64_t group = 0; group < (groups + kGroups - 1) / kGroups * kGroups; ++group) {
    int64_t step = group / kGroups, place = group % kGroups;
    int8_t* values = out.values + 2 * step * kBytes + place * 16;
    float top = 0;
    if (group < groups)
      for (int i = 0; i < kGroup; ++i) top = std::fmax(top, std::fabs(x[group * kGroup + i]));
    // Below it the inverse would be infinite, and the products are too small to count.
    float inverse = top > 1e-30f ? kMostInteger / top : 0;
    int32_t integers[kGroup];
    for (int i = 0; i < kGroup; ++i)
      integers[i] = inverse > 0 ? static_cast<int32_t>(std::nearbyint(x[group * kGroup + i] * inverse)) : 0;
    for (int i = 0; i < 16; ++i)
      for (int odd = 0; odd < 2; ++odd) {
        int32_t high = (integers[2 * i + odd] + 128) >> 8;
        values[odd * kBytes / 2 + i] = static_cast<int8_t>(high);
        values[kBytes + odd * kBytes / 2 + i] = static_cast<int8_t>(integers[2 * i + odd] - 256 * high);
      }
    for (int odd = 0; odd < 2; ++odd)
      for (int i = 0; i < 4; ++i) {
        int64_t lane = step * kSums + odd * kSums / 2 + place * 4 + i;
        int sum = 0;
        for (int j = 0; j < 4; ++j) sum += integers[2 * (4 * i + j) + odd];
        out.zeros[lane] = -kZero * sum;
        out.scales[lane] = top / kMostInteger;
      }
  }
}

template <int R, int M, typename Scale>
inline void DotBlock(Quantized x, const uint32_t* weights, const Scale* scales, int64_t groups, float* out,
                     int64_t ldo) {
  Scales sums[R][M] = {};
  int64_t steps = (groups + kGroups - 1) / kGroups;
  auto add = [&](int64_t step, int present) __attribute__((always_inline)) {
    Bytes high[M], low[M];
    Ints zeros[M];
    Scales of[M];
    for (int m = 0; m < M; ++m) {
      high[m] = *reinterpret_cast<const UnalignedBytes*>(x.values + 2 * (m * steps + step) * kBytes);
      low[m] = *reinterpret_cast<const UnalignedBytes*>(x.values + (2 * (m * steps + step) + 1) * kBytes);
      zeros[m] = *reinterpret_cast<const UnalignedInts*>(x.zeros + (m * steps + step) * kSums);
      of[m] = *reinterpret_cast<const UnalignedScales*>(x.scales + (m * steps + step) * kSums);
    }
    for (int r = 0; r < R; ++r) {
      Bytes bits = Unpack(weights + (r * groups + step * kGroups) * 4, present);
      Scales scale = Spread(scales + r * groups + step * kGroups, present);
      for (int m = 0; m < M; ++m) {
        Ints sum = (Dot(Ints{}, bits, high[m]) << 8) + Dot(zeros[m], bits, low[m]);
        sums[r][m] += __builtin_convertvector(sum, Scales) * (scale * of[m]);
      }
    }
  };
  for (int64_t step = 0; step < groups / kGroups; ++step) add(step, kGroups);
  if (groups % kGroups) add(steps - 1, groups % kGroups);
  for (int r = 0; r < R; ++r)
    for (int m = 0; m < M; ++m) {
      float sum = 0;
      for (int i = 0; i < kSums; ++i) sum += sums[r][m][i];
      out[m * ldo + r] = sum;
    }
}

template <int M, typename Scale>
void DotRows(Quantized x, const uint32_t* weights, const Scale* scales, int64_t groups, int64_t begin, int64_t end,
             float* out, int64_t ldo) {
  int64_t n = begin;
  for (; n + 4 <= end; n += 4)
    DotBlock<4, M>(x, weights + n * groups * 4, scales + n * groups, groups, out + n, ldo);
  for (; n < end; ++n) DotBlock<1, M>(x, weights + n * groups * 4, scales + n * groups, groups, out + n, ldo);
}

template <typename Scale>
void DotQ4(Quantized x, int64_t rows, const uint32_t* weights, const Scale* scales, int64_t groups, int64_t begin,
           int64_t end, float* out, int64_t ldo) {
  // More rows at a time than registers for their sums would be slower.
  constexpr int kMost = kLanes == 16 ? 4 : 2;
  int64_t steps = (groups + kGroups - 1) / kGroups;
  for (; rows >= kMost; rows -= kMost) {
    DotRows<kMost>(x, weights, scales, groups, begin, end, out, ldo);
    x = {x.values + 2 * kMost * steps * kBytes, x.scales + kMost * steps * kSums, x.zeros + kMost * steps * kSums};
    out += kMost * ldo;
  }
  if (rows == 3) DotRows<3>(x, weights, scales, groups, begin, end, out, ldo);
  if (rows == 2) DotRows<2>(x, weights, scales, groups, begin, end, out, ldo);
  if (rows == 1) DotRows<1>(x, weights, scales, groups, begin, end, out, ldo);
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

// Weights of four bits: eight positions of kLanes rows at a time.
template <typename Scale>
void PackQ4(const uint32_t* weights, const Scale* scales, int64_t groups, int64_t count, float* panel) {
  typedef uint32_t Words __attribute__((vector_size(4 * kLanes)));
  for (int64_t group = 0; group < groups; ++group)
    for (int first = 0; first < kColumns; first += kLanes) {
      Floats scale = {};
      for (int i = 0; i < kLanes; ++i)
        if (first + i < count) scale[i] = One(scales[(first + i) * groups + group]);
      for (int word = 0; word < kGroup / 8; ++word) {
        Words bits = {};
        for (int i = 0; i < kLanes; ++i)
          if (first + i < count) bits[i] = weights[((first + i) * groups + group) * 4 + word];
        for (int i = 0; i < 8; ++i, bits >>= 4) {
          Floats values = __builtin_convertvector((bits & 15), Floats) - Fill(kZero);
          Store(panel + (group * kGroup + word * 8 + i) * kColumns + first, values * scale);
        }
      }
    }
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

// Attention, block by block of keys, with a running maximum (Flash Attention).

constexpr int kBlock = 16;

// 2 to the power of numbers that are at most 0, to 2e-7 of the value.
inline Floats Exp2(Floats x) {
  typedef int32_t Words __attribute__((vector_size(4 * kLanes)));
  Floats low = Fill(-126);
  x = x < low ? low : x;
  // Adding 1.5 * 2^23 rounds to an integer, in the lowest bits.
  Floats rounded = x + Fill(12582912.0f);
  Words integer = (Words)rounded - (Words)Fill(12582912.0f);
  Floats f = x - (rounded - Fill(12582912.0f));
  // Taylor's polynomial, for at most 1/2.
  Floats p = Fill(1.5353362e-4f);
  p = p * f + Fill(1.3398874e-3f);
  p = p * f + Fill(9.6184374e-3f);
  p = p * f + Fill(5.5503324e-2f);
  p = p * f + Fill(2.4022648e-1f);
  p = p * f + Fill(6.9314720e-1f);
  p = p * f + Fill(1.0f);
  return (Floats)((Words)p + (integer << 23));
}

inline float Most(Floats value) {
  float most = value[0];
  for (int i = 1; i < kLanes; ++i) most = most < value[i] ? value[i] : most;
  return most;
}

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

// out[m] += the sum of weights[m][j] * value j.
template <int M>
inline void AddRows(const float* weights, const float* values, int64_t count, int64_t size, float* out) {
  for (int64_t k = 0; k < size; k += kLanes) {
    Floats sums[M];
    for (int m = 0; m < M; ++m) sums[m] = Load(out + m * size + k);
    for (int64_t j = 0; j < count; ++j) {
      Floats value = Load(values + j * size + k);
      for (int m = 0; m < M; ++m) sums[m] += weights[m * kBlock + j] * value;
    }
    for (int m = 0; m < M; ++m) Store(out + m * size + k, sums[m]);
  }
}

template <typename T>
void Attend(const Attention<T>& a) {
  const int64_t all = a.rows * a.group, size = a.size;
  static thread_local std::vector<float> memory;
  memory.resize(all * (2 * size + kBlock + 2) + 2 * kBlock * size);
  float* queries = memory.data();
  float* out = queries + all * size;
  float* scores = out + all * size;
  float* most = scores + all * kBlock;
  float* sum = most + all;
  float* keys = sum + all;
  float* values = keys + kBlock * size;
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
      for (int64_t j = 0; j < kBlock; ++j)
        for (int64_t k = 0; k < size; ++k) keys[k * kBlock + j] = j < count ? One(a.keys[first + j][k]) : 0;
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
    for (int64_t j = 0; j < count; ++j)
      for (int64_t k = 0; k < size; k += kLanes) Store(values + j * size + k, Load(a.values[first + j] + k));
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
      float factor = Exp2(Fill(most[r] - top))[0];
      sum[r] = sum[r] * factor + Sum(weights);
      if (top != most[r])
        for (int64_t k = 0; k < size; k += kLanes) Store(out + r * size + k, Load(out + r * size + k) * factor);
      most[r] = top;
    }
    int64_t r = 0;
    for (; r + 4 <= all; r += 4) AddRows<4>(scores + r * kBlock, values, count, size, out + r * size);
    for (; r < all; ++r) AddRows<1>(scores + r * kBlock, values, count, size, out + r * size);
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
    kGroups,
    kColumns,
    Quantize,
    DotQ4<float>,
    DotQ4<uint16_t>,
    Dot<float>,
    Dot<uint16_t>,
    PackQ4<float>,
    PackQ4<uint16_t>,
    Pack<float>,
    Pack<uint16_t>,
    Multiply,
    Attend<float>,
    Attend<uint16_t>,
    FromF16s,
    ToF16s,
};

}  // namespace cpu
}  // namespace mlc_bazel
