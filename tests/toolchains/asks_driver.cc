// Calls the driver itself, as TVM's device runtime does.
#include <cuda.h>

extern "C" int AskDriver() {
  int version = 0;
  return cuDriverGetVersion(&version) == CUDA_SUCCESS ? version : -1;
}
