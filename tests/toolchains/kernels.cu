// Kernels with features of real ones: half precision, CCCL, a local header, C++20.
#include "tests/toolchains/kernels.h"

#include <cuda_fp16.h>
#include <thrust/device_vector.h>
#include <thrust/reduce.h>

#include <concepts>

namespace {

template <std::floating_point T>
__global__ void Halve(const T* source, __half* destination, int count) {
  int index = blockIdx.x * blockDim.x + threadIdx.x;
  if (index < count) destination[index] = __float2half(static_cast<float>(source[index]) / 2);
}

}  // namespace

cudaError_t HalveOnDevice(const float* source, __half* destination, int count) {
  Halve<<<(count + kThreads - 1) / kThreads, kThreads>>>(source, destination, count);
  return cudaGetLastError();
}

float SumOnDevice(const float* values, int count) {
  thrust::device_ptr<const float> begin(values);
  return thrust::reduce(begin, begin + count);
}
