#include "src/cpu/threads.h"

#include <sched.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/reflection/registry.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace mlc_bazel {
namespace cpu {
namespace {

// Sums of products that one thread computes in less time than another needs to notice.
constexpr double kLittle = 1e5;

// How long a thread looks for the next call before it sleeps: about 50 microseconds, more than passes between two calls.
constexpr int kLooks = 2000;

inline void Pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// The first number in a file, or `otherwise` if it has none.
double Number(const std::string& path, double otherwise) {
  double value;
  return std::ifstream(path) >> value ? value : otherwise;
}

// Cores, not their hyper-threads, on which this process may run: a second thread of a core only waits for the first.
int Cores() {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return std::max(1u, std::thread::hardware_concurrency());
  std::set<std::pair<double, double>> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed)) continue;
    std::string topology = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
    // Where nothing is known, each is a core.
    cores.emplace(Number(topology + "physical_package_id", -1), Number(topology + "core_id", cpu));
  }
  return std::max<int>(1, cores.size());
}

// Cores' worth of time that a container gets: from cgroup v2 or v1, whose folders a container sees as the root.
double Quota() {
  const double none = 1e9;
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  double quota, period;
  if (file >> quota >> period) return quota / period;
  quota = Number("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", -1);
  return quota > 0 ? quota / Number("/sys/fs/cgroup/cpu/cpu.cfs_period_us", 1e5) : none;
}

// As many as TVM's own variables say, in its order, otherwise one for each core that this process has. TVM's default is
// half of the processors, even where each is a core, and takes no notice of containers' limits.
int ThreadCount() {
  for (const char* name : {"TVM_NUM_THREADS", "OMP_NUM_THREADS"}) {
    const char* value = std::getenv(name);
    if (value && std::atoi(value) > 0) return std::atoi(value);
  }
  return std::max(1, static_cast<int>(std::min<double>(Cores(), std::ceil(Quota()))));
}

class Threads {
 public:
  Threads() {
    helpers_ = ThreadCount() - 1;
    for (int i = 0; i < helpers_; ++i) std::thread([this] { Help(); }).detach();
  }

  void Run(int64_t count, const std::function<void(int64_t)>& work) {
    std::unique_lock<std::mutex> only(caller_, std::try_to_lock);
    if (!only.owns_lock() || helpers_ == 0 || count >= kMostIndices) {
      for (int64_t index = 0; index < count; ++index) work(index);
      return;
    }
    work_ = &work;
    error_ = nullptr;
    done_.store(0, std::memory_order_relaxed);
    count_.store(count, std::memory_order_relaxed);
    uint64_t call = ++calls_;
    // Publishes what is above. Helpers that are late find no index left, or another call.
    next_.store(call * kMostIndices, std::memory_order_seq_cst);
    if (asleep_.load(std::memory_order_seq_cst) > 0) {
      std::lock_guard<std::mutex> lock(sleep_);
      wake_.notify_all();
    }
    Take(call);
    while (done_.load(std::memory_order_acquire) < count) Pause();
    if (error_) std::rethrow_exception(error_);
  }

 private:
  static constexpr int64_t kMostIndices = int64_t{1} << 32;

  // Works on indices of a call until there is none.
  void Take(uint64_t call) {
    uint64_t next = next_.load(std::memory_order_acquire);
    for (;;) {
      // The count belongs to the call that `next` names if that has not changed when the index is taken.
      if (next / kMostIndices != call) return;
      int64_t index = next % kMostIndices;
      if (index >= count_.load(std::memory_order_relaxed)) return;
      if (!next_.compare_exchange_weak(next, next + 1, std::memory_order_acq_rel)) continue;
      // Until this one is done, the caller waits, and the work exists.
      try {
        (*work_)(index);
      } catch (...) {
        std::lock_guard<std::mutex> lock(sleep_);
        if (!error_) error_ = std::current_exception();
      }
      done_.fetch_add(1, std::memory_order_acq_rel);
      next = next_.load(std::memory_order_acquire);
    }
  }

  void Help() {
    uint64_t seen = 0;
    for (;;) {
      uint64_t call = next_.load(std::memory_order_acquire) / kMostIndices;
      for (int look = 0; call == seen && look < kLooks; ++look) {
        Pause();
        call = next_.load(std::memory_order_acquire) / kMostIndices;
      }
      if (call == seen) {
        std::unique_lock<std::mutex> lock(sleep_);
        asleep_.fetch_add(1, std::memory_order_seq_cst);
        wake_.wait(lock, [&] { return next_.load(std::memory_order_seq_cst) / kMostIndices != seen; });
        asleep_.fetch_sub(1, std::memory_order_relaxed);
        continue;
      }
      seen = call;
      Take(call);
    }
  }

  std::mutex caller_;
  int helpers_ = 0;
  uint64_t calls_ = 0;
  const std::function<void(int64_t)>* work_ = nullptr;
  std::exception_ptr error_;
  std::mutex sleep_;
  std::condition_variable wake_;
  std::atomic<int> asleep_{0};
  // Of the current call: its indices, how many are done, and its number with the next index.
  alignas(64) std::atomic<int64_t> count_{0};
  alignas(64) std::atomic<int64_t> done_{0};
  alignas(64) std::atomic<uint64_t> next_{0};
};

}  // namespace

namespace {

TVM_FFI_STATIC_INIT_BLOCK() {
  // How many threads a process with this environment uses.
  tvm::ffi::reflection::GlobalDef().def("mlc_bazel.cpu.threads", [] { return static_cast<int64_t>(ThreadCount()); });
}

}  // namespace

void Parallel(int64_t count, double operations, const std::function<void(int64_t)>& work) {
  if (count > 1 && operations > kLittle) {
    // Never destroyed: its threads end with the process.
    static Threads& threads = *new Threads();
    threads.Run(count, work);
  } else {
    for (int64_t index = 0; index < count; ++index) work(index);
  }
}

}  // namespace cpu
}  // namespace mlc_bazel
