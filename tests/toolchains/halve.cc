// Halves a number on the GPU.
#include <cstdio>

#include "tests/toolchains/kernels.h"

int main() {
  __half* half = nullptr;
  float* source = nullptr;
  cudaError_t error = cudaMalloc(&source, sizeof(float));
  if (error == cudaSuccess) error = cudaMalloc(&half, sizeof(__half));
  if (error == cudaSuccess) error = HalveOnDevice(source, half, 1);
  if (error == cudaSuccess) error = cudaDeviceSynchronize();
  std::printf("halve: %s\n", cudaGetErrorString(error));
  return error == cudaSuccess ? 0 : 1;
}
