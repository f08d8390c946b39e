// Threads that share the work of one call. TVM's own wait for each other at every call, so that one that the system does
// not run delays all: on a busy machine a model with hundreds of calls per token becomes many times slower.
#ifndef MLC_BAZEL_CPU_THREADS_H_
#define MLC_BAZEL_CPU_THREADS_H_

#include <cstdint>
#include <functional>

namespace mlc_bazel {
namespace cpu {

// Calls work(index) for all indices below count: in this thread, and in others as far as they come to help.
//
// Work of less than a few microseconds (`operations`, sums of products) is not shared, nor is any while another thread
// shares its own.
void Parallel(int64_t count, double operations, const std::function<void(int64_t)>& work);

}  // namespace cpu
}  // namespace mlc_bazel

#endif  // MLC_BAZEL_CPU_THREADS_H_
