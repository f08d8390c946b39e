#include "src/cpu/threads.h"

#include <pthread.h>
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
#include <system_error>
#include <thread>
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

// The first word or number in a file, or `otherwise` if it has none.
template <typename Value>
Value First(const std::string& path, Value otherwise) {
  Value value;
  return std::ifstream(path) >> value ? value : otherwise;
}

// Cores, not their hyper-threads, on which this process may run: a second thread of a core only waits for the first.
int Cores() {
  // More than Linux supports.
  constexpr int kMostProcessors = 1 << 16;
  cpu_set_t* allowed = CPU_ALLOC(kMostProcessors);
  const size_t size = CPU_ALLOC_SIZE(kMostProcessors);
  std::set<std::string> cores;
  if (sched_getaffinity(0, size, allowed) == 0) {
    for (int cpu = 0; cpu < kMostProcessors; ++cpu) {
      if (!CPU_ISSET_S(cpu, size, allowed)) continue;
      // The processors of its core. Where nothing is known, each is one.
      const std::string number = std::to_string(cpu);
      cores.insert(First("/sys/devices/system/cpu/cpu" + number + "/topology/thread_siblings_list", number));
    }
  }
  CPU_FREE(allowed);
  return std::max<int>(1, cores.size());
}

// Cores' worth of time that a container gets: from cgroup v2 or v1, whose folders a container sees as the root.
double Quota() {
  const double none = 1e9;
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  double quota, period;
  if (file >> quota >> period) return quota / period;
  quota = First("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", -1.0);
  return quota > 0 ? quota / First("/sys/fs/cgroup/cpu/cpu.cfs_period_us", 1e5) : none;
}

// As many as TVM's own variables say, in its order, otherwise one for each core that this process has. TVM's default is
// half of the processors, even where each is a core, and takes no notice of containers' limits.
int ThreadCount() {
  constexpr long kMostThreads = 1024;
  for (const char* name : {"TVM_NUM_THREADS", "OMP_NUM_THREADS"}) {
    const char* value = std::getenv(name);
    if (value && std::atol(value) > 0) return std::min(std::atol(value), kMostThreads);
  }
  return std::max<int>(1, std::min<double>({static_cast<double>(kMostThreads), 1.0 * Cores(), std::ceil(Quota())}));
}

// Whether this process was forked from one with threads, which it has not.
std::atomic<bool> forked{false};

class Threads {
 public:
  Threads() {
    pthread_atfork(nullptr, nullptr, [] { forked = true; });
    const int wanted = ThreadCount() - 1;
    try {
      for (; helpers_ < wanted; ++helpers_) std::thread([this] { Help(); }).detach();
    } catch (const std::system_error&) {
      // Limits of processes or memory: those that there are do the work.
    }
  }

  void Run(int64_t count, const std::function<void(int64_t)>& work) {
    std::unique_lock<std::mutex> only(caller_, std::try_to_lock);
    if (!only.owns_lock() || helpers_ == 0 || count >= kClosed || forked) {
      for (int64_t index = 0; index < count; ++index) work(index);
      return;
    }
    // First ends the call before: a helper that is late must not take an index of this one for it.
    next_.store(Next(call_, kClosed), std::memory_order_relaxed);
    work_ = &work;
    error_ = nullptr;
    done_.store(0, std::memory_order_relaxed);
    count_.store(count, std::memory_order_release);
    ++call_;
    // Publishes what is above.
    next_.store(Next(call_, 0), std::memory_order_seq_cst);
    if (asleep_.load(std::memory_order_seq_cst) > 0) {
      std::lock_guard<std::mutex> lock(sleep_);
      wake_.notify_all();
    }
    Take(call_);
    while (done_.load(std::memory_order_acquire) < count) Pause();
    if (error_) std::rethrow_exception(error_);
  }

 private:
  // A call's number and its next index, in one word. Numbers begin again after the largest one.
  static constexpr uint64_t Next(uint32_t call, uint32_t index) { return uint64_t{call} << 32 | index; }
  static uint32_t CallOf(uint64_t next) { return next >> 32; }

  // The next index of a call that has none left, whatever its count.
  static constexpr uint32_t kClosed = ~uint32_t{0};

  // Works on indices of a call until there is none.
  void Take(uint32_t call) {
    uint64_t next = next_.load(std::memory_order_acquire);
    for (;;) {
      if (CallOf(next) != call) return;
      const int64_t index = static_cast<uint32_t>(next);
      // If this is the count of a later call, that one has closed this one, and the exchange fails.
      if (index >= count_.load(std::memory_order_acquire)) return;
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
    uint32_t seen = 0;
    for (;;) {
      uint32_t call = CallOf(next_.load(std::memory_order_acquire));
      for (int look = 0; call == seen && look < kLooks; ++look) {
        Pause();
        call = CallOf(next_.load(std::memory_order_acquire));
      }
      if (call == seen) {
        std::unique_lock<std::mutex> lock(sleep_);
        asleep_.fetch_add(1, std::memory_order_seq_cst);
        wake_.wait(lock, [&] { return CallOf(next_.load(std::memory_order_seq_cst)) != seen; });
        asleep_.fetch_sub(1, std::memory_order_relaxed);
        continue;
      }
      seen = call;
      Take(call);
    }
  }

  std::mutex caller_;
  int helpers_ = 0;
  uint32_t call_ = 0;
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
