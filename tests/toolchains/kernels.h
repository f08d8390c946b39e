#ifndef TESTS_TOOLCHAINS_KERNELS_H_
#define TESTS_TOOLCHAINS_KERNELS_H_

#include <cuda_fp16.h>
#include <cuda_runtime.h>

constexpr int kThreads = 256;

cudaError_t HalveOnDevice(const float* source, __half* destination, int count);
float SumOnDevice(const float* values, int count);

#endif  // TESTS_TOOLCHAINS_KERNELS_H_
