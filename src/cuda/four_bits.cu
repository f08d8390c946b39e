/* Products with weights of four bits in groups of 32 (mlc-llm's q4f16_1), for the few rows of decoding.
 *
 * A block computes 16 or 32 rows of the weights times up to 32 rows of x, and its eight warps share the sum over the
 * inner size. A lane reads 16 bytes, which are one group of one row, and turns them into operands of the tensor cores
 * where they are: the order in which a product sums is free, so the inner positions are those of the lane's group, and
 * x is read in the same order. Each weight is read once for 32 rows of x.
 *
 * For one row of x, whose product is only as fast as the memory, a warp computes two rows of the weights without the
 * tensor cores: on an H200 a fifth faster.
 */
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/error.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/extra/cuda/device_guard.h>
#include <tvm/ffi/function.h>

#include <cstdint>

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#error "expected sm_80 or newer: older tensor cores have no such product"
#endif

namespace {

constexpr int kWarps = 8;
constexpr int kGroup = 32;    // Weights that share a scale; a lane's.
constexpr int kWords = 4;     // 32-bit words of a group.
constexpr int kStep = 4;      // Groups of a row that a warp reads at a time.
constexpr int kTileRows = 16; // Of weights, in a product of the tensor cores.
constexpr int kTileX = 8;     // Rows of x in it.

/* A group's bytes, which no other block reads again soon. */
__device__ __forceinline__ uint4 Stream(const uint4* from) {
  uint4 found;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(found.x), "=r"(found.y), "=r"(found.z), "=r"(found.w)
               : "l"(from));
  return found;
}

/* The bits of 0x6400 are 1024 in float16, so the bits of a number below 1024 in the mantissa add it. */
__device__ __forceinline__ uint32_t Mantissas(uint32_t word, uint32_t mask) { return (word & mask) | 0x64006400u; }

__device__ __forceinline__ __half2 AsHalves(uint32_t bits) { return *reinterpret_cast<__half2*>(&bits); }

__device__ __forceinline__ uint32_t AsBits(__half2 halves) { return *reinterpret_cast<uint32_t*>(&halves); }

/* The eight weights of a word, as mlc-llm dequantizes them: (bits - 7) in float16, times the scale.
 * pairs: weights (0, 4), (1, 5), (2, 6), (3, 7).
 */
__device__ __forceinline__ void Dequantize(uint32_t word, __half2 scale, uint32_t (&pairs)[4]) {
  const __half2 low = __float2half2_rn(-1031.f), high = __float2half2_rn(-71.f);
  const __half2 sixteenth = __float2half2_rn(1.f / 16);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const uint32_t bits = word >> (8 * half);
    const __half2 even = __hadd2(AsHalves(Mantissas(bits, 0x000f000fu)), low);
    // 1024 + 16 * bits, exactly.
    const __half2 odd = __hfma2(AsHalves(Mantissas(bits, 0x00f000f0u)), sixteenth, high);
    pairs[2 * half] = AsBits(__hmul2(even, scale));
    pairs[2 * half + 1] = AsBits(__hmul2(odd, scale));
  }
}

__device__ __forceinline__ void Multiply(float (&sum)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                                         uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/* What a lane reads of the weights in a step: its group of two rows of each tile. */
template <int kTiles>
struct Weights {
  uint4 words[kTiles][2];
  __half scale[kTiles][2];

  __device__ __forceinline__ void Load(const uint4* all_words, const __half* scales, int row, int rows, int group,
                                       int groups) {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int own = row + tile * kTileRows + half * 8;
        if (group < groups && own < rows) {
          const int64_t place = static_cast<int64_t>(own) * groups + group;
          words[tile][half] = Stream(all_words + place);
          scale[tile][half] = scales[place];
        } else {
          words[tile][half] = make_uint4(0, 0, 0, 0);
          scale[tile][half] = __float2half(0.f);
        }
      }
    }
  }
};

/* out = x @ weights.T
 *
 * x: (count, inner); words: (rows, inner / 32) of 16 bytes; scales: (rows, inner / 32); out: (count, rows).
 */
template <int kTiles, int kTilesX, typename Out>
__global__ void __launch_bounds__(32 * kWarps)
    Product(const __half* x, const uint4* words, const __half* scales, Out* out, int count, int rows, int groups) {
  constexpr int kRows = kTiles * kTileRows, kCount = kTilesX * kTileX;
  // Blocks that read the same weights are neighbours.
  const int first_x = blockIdx.x * kCount, first_row = blockIdx.y * kRows;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, quad = lane / 4, place = lane % 4;
  float sums[kTiles][kTilesX][4] = {};
  Weights<kTiles> now, next;
  now.Load(words, scales, first_row + quad, rows, warp * kStep + place, groups);
  for (int step = warp; step * kStep < groups; step += kWarps) {
    next.Load(words, scales, first_row + quad, rows, (step + kWarps) * kStep + place, groups);
    const int group = step * kStep + place;
#pragma unroll
    for (int word = 0; word < kWords; ++word) {
      uint32_t pairs[kTiles][2][4];
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const uint4& four = now.words[tile][half];
          const uint32_t own = word == 0 ? four.x : word == 1 ? four.y : word == 2 ? four.z : four.w;
          Dequantize(own, __half2half2(now.scale[tile][half]), pairs[tile][half]);
        }
      }
#pragma unroll
      for (int tile_x = 0; tile_x < kTilesX; ++tile_x) {
        const int own = first_x + tile_x * kTileX + quad;
        uint4 eight = make_uint4(0, 0, 0, 0);
        if (own < count && group < groups) {
          const int64_t start = (static_cast<int64_t>(own) * groups + group) * kGroup + word * 8;
          eight = __ldg(reinterpret_cast<const uint4*>(x + start));
        }
        // Pairs as those of the weights.
        const uint32_t b0 = __byte_perm(eight.x, eight.z, 0x5410), b1 = __byte_perm(eight.x, eight.z, 0x7632);
        const uint32_t b2 = __byte_perm(eight.y, eight.w, 0x5410), b3 = __byte_perm(eight.y, eight.w, 0x7632);
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
          const auto& first = pairs[tile][0];
          const auto& second = pairs[tile][1];
          // Pairs (0, 4) and (1, 5), then (2, 6) and (3, 7).
          Multiply(sums[tile][tile_x], first[0], second[0], first[1], second[1], b0, b1);
          Multiply(sums[tile][tile_x], first[2], second[2], first[3], second[3], b2, b3);
        }
      }
    }
    now = next;
  }

  __shared__ float parts[kWarps][kCount][kRows + 1];
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
    for (int tile_x = 0; tile_x < kTilesX; ++tile_x) {
#pragma unroll
      for (int each = 0; each < 4; ++each) {
        const int row = tile * kTileRows + quad + (each / 2) * 8, own = tile_x * kTileX + place * 2 + each % 2;
        parts[warp][own][row] = sums[tile][tile_x][each];
      }
    }
  }
  __syncthreads();
  for (int index = threadIdx.x; index < kRows * kCount; index += 32 * kWarps) {
    const int row = index % kRows, own = index / kRows;
    if (first_row + row >= rows || first_x + own >= count) {
      continue;
    }
    float sum = 0;
#pragma unroll
    for (int each = 0; each < kWarps; ++each) {
      sum += parts[each][own][row];
    }
    out[static_cast<int64_t>(first_x + own) * rows + first_row + row] = static_cast<Out>(sum);
  }
}

constexpr int kVectorWarps = 4, kVectorRows = 2;  // A block's warps, and a warp's rows of the weights.

/* The sum over a lane's groups of a row in float32, for products that are too large for float16. */
__device__ __noinline__ float ExactSum(const __half* x, const uint4* words, const __half* scales, int groups) {
  float sum = 0;
  for (int group = threadIdx.x % 32; group < groups; group += 32) {
    const uint4 now = words[group];
    const uint32_t four[kWords] = {now.x, now.y, now.z, now.w};
    float part = 0;
    for (int each = 0; each < kGroup; ++each) {
      const int weight = static_cast<int>(four[each / 8] >> (4 * (each % 8)) & 15u) - 7;
      part += static_cast<float>(weight) * __half2float(x[group * kGroup + each]);
    }
    sum += part * __half2float(scales[group]);
  }
  return sum;
}

/* The sum of all lanes, in each. */
__device__ __forceinline__ float WarpSum(float sum) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    sum += __shfl_xor_sync(~0u, sum, distance);
  }
  return sum;
}

/* The same as Product, for one row of x. */
template <typename Out>
__global__ void __launch_bounds__(32 * kVectorWarps)
    VectorProduct(const __half* x, const uint4* words, const __half* scales, Out* out, int rows, int groups) {
  const int lane = threadIdx.x % 32;
  const int first_row = (blockIdx.x * kVectorWarps + threadIdx.x / 32) * kVectorRows;
  // A row that does not exist is the last, which is not written again.
  int64_t start[kVectorRows];
#pragma unroll
  for (int row = 0; row < kVectorRows; ++row) {
    start[row] = static_cast<int64_t>(min(first_row + row, rows - 1)) * groups;
  }
  const __half2 low = __float2half2_rn(-1031.f), high = __float2half2_rn(-71.f);
  const __half2 sixteenth = __float2half2_rn(1.f / 16);
  float sums[kVectorRows] = {};
#pragma unroll 4
  for (int group = lane; group < groups; group += 32) {
    uint4 now[kVectorRows];
    __half scale[kVectorRows];
#pragma unroll
    for (int row = 0; row < kVectorRows; ++row) {
      now[row] = Stream(words + start[row] + group);
      scale[row] = scales[start[row] + group];
    }
    float parts[kVectorRows] = {};
#pragma unroll
    for (int word = 0; word < kWords; ++word) {
      const uint4 eight = __ldg(reinterpret_cast<const uint4*>(x + group * kGroup + word * 8));
      // Pairs as those of the weights.
      const __half2 x0 = AsHalves(__byte_perm(eight.x, eight.z, 0x5410));
      const __half2 x1 = AsHalves(__byte_perm(eight.x, eight.z, 0x7632));
      const __half2 x2 = AsHalves(__byte_perm(eight.y, eight.w, 0x5410));
      const __half2 x3 = AsHalves(__byte_perm(eight.y, eight.w, 0x7632));
#pragma unroll
      for (int row = 0; row < kVectorRows; ++row) {
        const uint32_t own = word == 0 ? now[row].x : word == 1 ? now[row].y : word == 2 ? now[row].z : now[row].w;
        // Four products each in float16, whole numbers times x; everything else in float32.
        __half2 four = __hmul2(__hadd2(AsHalves(Mantissas(own, 0x000f000fu)), low), x0);
        four = __hfma2(__hfma2(AsHalves(Mantissas(own, 0x00f000f0u)), sixteenth, high), x1, four);
        four = __hfma2(__hadd2(AsHalves(Mantissas(own >> 8, 0x000f000fu)), low), x2, four);
        four = __hfma2(__hfma2(AsHalves(Mantissas(own >> 8, 0x00f000f0u)), sixteenth, high), x3, four);
        const float2 both = __half22float2(four);
        parts[row] += both.x + both.y;
      }
    }
#pragma unroll
    for (int row = 0; row < kVectorRows; ++row) {
      sums[row] += parts[row] * __half2float(scale[row]);
    }
  }
#pragma unroll
  for (int row = 0; row < kVectorRows; ++row) {
    float sum = WarpSum(sums[row]);
    if (!isfinite(sum)) {
      sum = WarpSum(ExactSum(x, words + start[row], scales + start[row], groups));
    }
    if (lane == 0 && first_row + row < rows) {
      out[first_row + row] = static_cast<Out>(sum);
    }
  }
}

template <int kTiles, int kTilesX, typename Out>
void Launch(const __half* x, const uint4* words, const __half* scales, Out* out, int count, int rows, int groups,
            cudaStream_t stream) {
  constexpr int kRows = kTiles * kTileRows, kCount = kTilesX * kTileX;
  const dim3 grid((count + kCount - 1) / kCount, (rows + kRows - 1) / kRows);
  Product<kTiles, kTilesX><<<grid, 32 * kWarps, 0, stream>>>(x, words, scales, out, count, rows, groups);
}

template <typename Out>
void Choose(const __half* x, const uint4* words, const __half* scales, Out* out, int count, int rows, int groups,
            cudaStream_t stream) {
  if (count == 1) {
    constexpr int kBlockRows = kVectorWarps * kVectorRows;
    VectorProduct<<<(rows + kBlockRows - 1) / kBlockRows, 32 * kVectorWarps, 0, stream>>>(x, words, scales, out, rows,
                                                                                          groups);
  } else if (count <= 4) {
    Launch<1, 1>(x, words, scales, out, count, rows, groups, stream);
  } else if (count <= 8) {
    Launch<2, 1>(x, words, scales, out, count, rows, groups, stream);
  } else if (count <= 16) {
    Launch<2, 2>(x, words, scales, out, count, rows, groups, stream);
  } else {
    Launch<2, 4>(x, words, scales, out, count, rows, groups, stream);
  }
}

using tvm::ffi::TensorView;

template <typename T>
T* Data(const TensorView& tensor) {
  return reinterpret_cast<T*>(static_cast<char*>(tensor.data_ptr()) + tensor.byte_offset());
}

bool Is(const TensorView& tensor, DLDataTypeCode code, int bits) {
  return tensor.dtype().code == code && tensor.dtype().bits == bits && tensor.dtype().lanes == 1;
}

/* out = x @ dequantized(words, scales).T
 *
 * x: (..., inner) float16; words: (rows, inner / 8) uint32; scales: (rows, inner / 32) float16; out: (..., rows)
 * float16 or float32. inner is a multiple of 32.
 */
void FourBitProduct(TensorView x, TensorView words, TensorView scales, TensorView out) {
  TVM_FFI_ICHECK(x.ndim() >= 1 && words.ndim() == 2 && scales.ndim() == 2 && out.ndim() == x.ndim());
  TVM_FFI_ICHECK(Is(x, kDLFloat, 16) && Is(words, kDLUInt, 32) && Is(scales, kDLFloat, 16));
  TVM_FFI_ICHECK(Is(out, kDLFloat, 16) || Is(out, kDLFloat, 32));
  const int64_t inner = x.size(x.ndim() - 1), rows = words.size(0);
  TVM_FFI_ICHECK(inner % kGroup == 0 && words.size(1) * 8 == inner && scales.size(1) * kGroup == inner);
  TVM_FFI_ICHECK(scales.size(0) == rows && out.size(out.ndim() - 1) == rows);
  int64_t count = 1;
  for (int each = 0; each + 1 < x.ndim(); ++each) {
    count *= x.size(each);
    TVM_FFI_ICHECK(x.size(each) == out.size(each));
  }
  if (count == 0) {
    return;
  }
  const DLDevice device = x.device();
  for (const TensorView& each : {words, scales, out}) {
    TVM_FFI_ICHECK(each.device().device_type == device.device_type && each.device().device_id == device.device_id);
  }
  const tvm::ffi::CUDADeviceGuard guard(device.device_id);
  const auto stream = static_cast<cudaStream_t>(TVMFFIEnvGetStream(device.device_type, device.device_id));
  const auto groups = static_cast<int>(inner / kGroup);
  const auto run = [&](auto* to) {
    Choose(Data<__half>(x), Data<uint4>(words), Data<__half>(scales), to, static_cast<int>(count),
           static_cast<int>(rows), groups, stream);
  };
  if (out.dtype().bits == 16) {
    run(Data<__half>(out));
  } else {
    run(Data<float>(out));
  }
  const cudaError_t error = cudaGetLastError();
  TVM_FFI_ICHECK(error == cudaSuccess) << cudaGetErrorString(error);
}

}  // namespace

TVM_FFI_DLL_EXPORT_TYPED_FUNC(mlc_bazel_four_bit_product, FourBitProduct);
