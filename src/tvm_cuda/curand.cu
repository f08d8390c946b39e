// Random tensors on the GPU: TVM's runtime.contrib.curand.RandomFill. The source in TVM 0.26.0 does not compile, because it lacks headers and uses an Any
// as a pointer.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <curand.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/error.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/reflection/registry.h>

#include <map>

namespace {

using tvm::ffi::TensorView;

// The values in TVM.
constexpr float kMean = 0.0f;
constexpr float kStandardDeviation = 5.0f;
constexpr int kThreads = 256;

void Check(cudaError_t error) {
  if (error != cudaSuccess) TVM_FFI_THROW(RuntimeError) << "CUDA: " << cudaGetErrorString(error);
}

void Check(curandStatus_t status) {
  if (status != CURAND_STATUS_SUCCESS) TVM_FFI_THROW(RuntimeError) << "cuRAND: status " << static_cast<int>(status);
}

// The sequence continues from call to call and is the same in every process, because it uses cuRAND's default seed. Generators are never destroyed, because at
// the end of a process the driver may unload before a thread's objects are destroyed.
curandGenerator_t Generator(int device) {
  static thread_local auto* generators = new std::map<int, curandGenerator_t>();
  auto [found, is_new] = generators->try_emplace(device, nullptr);
  if (is_new) {
    if (curandStatus_t status = curandCreateGenerator(&found->second, CURAND_RNG_PSEUDO_DEFAULT); status != CURAND_STATUS_SUCCESS) {
      generators->erase(found);
      Check(status);
    }
  }
  return found->second;
}

template <typename T>
__global__ void Convert(const float* source, T* destination, int64_t count) {
  int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index < count) destination[index] = static_cast<T>(source[index]);
}

template <typename T>
void ConvertTo(const float* source, void* destination, int64_t count, cudaStream_t stream) {
  Convert<<<(count + kThreads - 1) / kThreads, kThreads, 0, stream>>>(source, static_cast<T*>(destination), count);
  Check(cudaGetLastError());
}

// Memory that lives as long as the stream uses it.
struct Scratch {
  Scratch(size_t bytes, cudaStream_t stream) : stream(stream) { Check(cudaMallocAsync(&data, bytes, stream)); }
  ~Scratch() { cudaFreeAsync(data, stream); }
  void* data = nullptr;
  cudaStream_t stream;
};

// Fills a contiguous tensor of float16, bfloat16, float32 or float64 with normally distributed numbers, mean 0 and standard deviation 5.
void RandomFill(TensorView tensor) {
  DLDevice device = tensor.device();
  DLDataType type = tensor.dtype();
  TVM_FFI_CHECK(device.device_type == kDLCUDA, ValueError) << "expected a tensor on a CUDA device, found one on device type " << device.device_type;
  TVM_FFI_CHECK(tensor.IsContiguous(), ValueError) << "expected a contiguous tensor";
  bool is_float = type.code == kDLFloat && (type.bits == 16 || type.bits == 32 || type.bits == 64);
  bool is_bfloat16 = type.code == kDLBfloat && type.bits == 16;
  TVM_FFI_CHECK(type.lanes == 1 && (is_float || is_bfloat16), ValueError)
      << "expected float16, bfloat16, float32 or float64, found DLPack type code " << int(type.code) << ", " << int(type.bits) << " bits, " << type.lanes << " lanes";
  int64_t count = tensor.numel();
  if (count == 0) return;
  // cuRAND generates normal numbers in pairs.
  int64_t even = count + count % 2;
  Check(cudaSetDevice(device.device_id));
  auto stream = static_cast<cudaStream_t>(TVMFFIEnvGetStream(device.device_type, device.device_id));
  curandGenerator_t generator = Generator(device.device_id);
  Check(curandSetStream(generator, stream));
  void* data = static_cast<char*>(tensor.data_ptr()) + tensor.byte_offset();
  if (type.bits == 64) {
    if (even == count) {
      Check(curandGenerateNormalDouble(generator, static_cast<double*>(data), count, kMean, kStandardDeviation));
    } else {
      Scratch scratch(even * sizeof(double), stream);
      Check(curandGenerateNormalDouble(generator, static_cast<double*>(scratch.data), even, kMean, kStandardDeviation));
      Check(cudaMemcpyAsync(data, scratch.data, count * sizeof(double), cudaMemcpyDeviceToDevice, stream));
    }
  } else if (type.bits == 32 && even == count) {
    Check(curandGenerateNormal(generator, static_cast<float*>(data), count, kMean, kStandardDeviation));
  } else {
    Scratch scratch(even * sizeof(float), stream);
    auto* numbers = static_cast<float*>(scratch.data);
    Check(curandGenerateNormal(generator, numbers, even, kMean, kStandardDeviation));
    if (type.bits == 32) {
      Check(cudaMemcpyAsync(data, numbers, count * sizeof(float), cudaMemcpyDeviceToDevice, stream));
    } else if (is_bfloat16) {
      ConvertTo<__nv_bfloat16>(numbers, data, count, stream);
    } else {
      ConvertTo<__half>(numbers, data, count, stream);
    }
  }
  // The next reader of the tensor may use another stream.
  Check(cudaStreamSynchronize(stream));
}

TVM_FFI_STATIC_INIT_BLOCK() { tvm::ffi::reflection::GlobalDef().def("runtime.contrib.curand.RandomFill", RandomFill); }

}  // namespace
