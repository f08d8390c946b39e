#include "peer_sums.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <flashinfer/comm/trtllm_allreduce_fusion.cuh>
#include <fstream>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace mlc_bazel {
namespace {

namespace fusion = flashinfer::trtllm_allreduce_fusion;

constexpr int kOldest = 80, kWithClusters = 90;
constexpr bool kInFloat32 = true;

/* FlashInfer's kernel shares rows between blocks. The rows of the tensor do not matter to a sum. */
constexpr int64_t kNarrowestRow = 256, kWidestRow = 2048;
constexpr int kAlignment = 16;

/* FlashInfer's buffers are used in turn: one for this sum, one for the next, one is cleared. */
constexpr int kTurns = 3;

/* What marks that nothing has arrived: the negative zero of both types. */
constexpr uint16_t kNothing = 0x8000;

/* Bytes of a sum beyond which NCCL has it, because each worker sends its whole tensor to every other. Where NCCL becomes
 * faster was not measured.
 */
int64_t LargestSum(int workers) { return (int64_t{2} << 20) / workers; }

void Check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) {
    throw std::runtime_error(std::string("sums over GPUs: ") + what + ": " + cudaGetErrorString(status));
  }
}

void Check(ncclResult_t status, const char* what) {
  if (status != ncclSuccess) {
    throw std::runtime_error(std::string("sums over GPUs: ") + what + ": " + ncclGetErrorString(status));
  }
}

/* Whether it succeeded. A failure is forgotten, because a later check would take it for its own. */
bool Succeeds(cudaError_t status) {
  if (status != cudaSuccess) {
    cudaGetLastError();
  }
  return status == cudaSuccess;
}

/* What a worker tells the others about its memory. */
struct Offer {
  int32_t is_ready;
  int32_t device;
  /* FlashInfer takes all GPUs of a process for the same. */
  int32_t architecture, processors;
  /* Numbers of processes repeat in containers. */
  uint64_t process;
  char boot[40];
  void* memory;
  cudaIpcMemHandle_t handle;
};

uint64_t ThisProcess() {
  static const uint64_t number = [] {
    std::random_device source;
    return uint64_t{source()} << 32 | source();
  }();
  return number;
}

class PeerSums {
 public:
  PeerSums(int worker, int workers, ncclComm_t communicator, cudaStream_t stream)
      : worker_(worker), workers_(workers), turn_(LargestSum(workers) * workers) {
    Offer mine = MakeOffer();
    const std::vector<Offer> offers = Exchange(mine, communicator, stream);
    mine.is_ready = mine.is_ready && Reach(offers) && Fill();
    const std::vector<Offer> votes = Exchange(mine, communicator, stream);
    is_ready_ = std::all_of(votes.begin(), votes.end(), [](const Offer& each) { return each.is_ready; });
  }

  ~PeerSums() {
    Succeeds(cudaDeviceSynchronize());
    for (void* each : opened_) {
      Succeeds(cudaIpcCloseMemHandle(each));
    }
    Succeeds(cudaFree(table_));
    Succeeds(cudaFree(memory_));
  }

  bool is_ready() const { return is_ready_; }

  int64_t limit() const { return LargestSum(workers_); }

  template <typename T>
  void Sum(const void* from, void* to, int64_t count, cudaStream_t stream) const {
    fusion::AllReduceFusionParams<T> given{};
    given.nranks = workers_;
    given.rank = worker_;
    given.size = static_cast<int>(count);
    given.hidden_dim = static_cast<int>(std::gcd(count, kWidestRow));
    given.workspace = table_;
    given.allreduce_in = const_cast<void*>(from);
    given.allreduce_out = to;
    given.use_oneshot = true;
    given.stream = stream;
    given.pattern = fusion::AllReduceFusionPattern::kAllReduce;
    switch (workers_) {
      case 2:
        return Launch<T, 2>(given);
      case 4:
        return Launch<T, 4>(given);
      case 8:
        return Launch<T, 8>(given);
    }
  }

 private:
  template <typename T, int kWorkers>
  static void Launch(const fusion::AllReduceFusionParams<T>& given) {
    Check(fusion::allreduce_fusion_kernel_launcher<fusion::AllReduceFusionPattern::kAllReduce, T, kWorkers, kInFloat32>(
              given, /*launch_with_pdl=*/false),
          "kernel");
  }

  static bool Is(const char* variable, const char* value) {
    const char* found = std::getenv(variable);
    return found != nullptr && std::strcmp(found, value) == 0;
  }

  /* Whether the kernel that this GPU runs is compiled for it. FlashInfer launches one with clusters on a newer GPU, which
   * kernels for older ones, compiled from PTX, know nothing of.
   */
  static bool HasKernelFor(int architecture) {
    cudaFuncAttributes attributes;
    return architecture >= kOldest &&
           Succeeds(cudaFuncGetAttributes(
               &attributes,
               fusion::allreduce_fusion_kernel_oneshot_lamport<fusion::AllReduceFusionPattern::kAllReduce, half, 2,
                                                               kInFloat32, true>)) &&
           (attributes.ptxVersion >= kWithClusters) == (architecture >= kWithClusters);
  }

  Offer MakeOffer() {
    Offer offer{};
    int major = 0, minor = 0;
    Check(cudaGetDevice(&offer.device), "device");
    offer.is_ready =
        !Is("MLC_PEER_SUMS", "0") && !Is("NCCL_P2P_DISABLE", "1") &&
        Succeeds(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, offer.device)) &&
        Succeeds(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, offer.device)) &&
        Succeeds(cudaDeviceGetAttribute(&offer.processors, cudaDevAttrMultiProcessorCount, offer.device)) &&
        HasKernelFor(10 * major + minor) && Succeeds(cudaMalloc(&memory_, kTurns * turn_)) &&
        Succeeds(cudaIpcGetMemHandle(&offer.handle, memory_));
    offer.architecture = 10 * major + minor;
    offer.process = ThisProcess();
    offer.memory = memory_;
    std::ifstream("/proc/sys/kernel/random/boot_id").read(offer.boot, sizeof(offer.boot) - 1);
    offer.is_ready = offer.is_ready && offer.boot[0] != 0;
    return offer;
  }

  /* Returns what each worker offers; it waits for all. */
  std::vector<Offer> Exchange(const Offer& mine, ncclComm_t communicator, cudaStream_t stream) const {
    std::vector<Offer> all(workers_);
    Offer* on_device = nullptr;
    Check(cudaMalloc(&on_device, workers_ * sizeof(Offer)), "memory");
    const std::unique_ptr<Offer, void (*)(Offer*)> frees(on_device, [](Offer* each) { Succeeds(cudaFree(each)); });
    Check(cudaMemcpyAsync(on_device + worker_, &mine, sizeof(Offer), cudaMemcpyHostToDevice, stream), "copy");
    Check(ncclAllGather(on_device + worker_, on_device, sizeof(Offer), ncclUint8, communicator, stream), "exchange");
    Check(cudaMemcpyAsync(all.data(), on_device, workers_ * sizeof(Offer), cudaMemcpyDeviceToHost, stream), "copy");
    Check(cudaStreamSynchronize(stream), "exchange");
    return all;
  }

  /* Whether this process can use the memory of all workers, whose addresses it finds. */
  bool Reach(const std::vector<Offer>& offers) {
    const Offer& mine = offers[worker_];
    for (const Offer& each : offers) {
      void* address = each.memory;
      if (!each.is_ready || std::strcmp(each.boot, mine.boot) != 0 || each.architecture != mine.architecture ||
          each.processors != mine.processors) {
        return false;
      }
      if (each.process != mine.process) {
        if (!Succeeds(cudaIpcOpenMemHandle(&address, each.handle, cudaIpcMemLazyEnablePeerAccess))) {
          return false;
        }
        opened_.push_back(address);
      } else if (each.device != mine.device) {
        int can_reach = 0;
        if (!Succeeds(cudaDeviceCanAccessPeer(&can_reach, mine.device, each.device)) || !can_reach) {
          return false;
        }
        const cudaError_t status = cudaDeviceEnablePeerAccess(each.device, 0);
        if (!Succeeds(status) && status != cudaErrorPeerAccessAlreadyEnabled) {
          return false;
        }
      }
      addresses_.push_back(address);
    }
    return true;
  }

  /* Whether the buffers are empty and the table that the kernel reads is on the device.
   *
   * The table (trtllm_allreduce_fusion.cuh): buffers and flags of a kernel that is not used, the buffers of each worker,
   * then counter, flag, turn, bytes of a turn, and elements to clear.
   */
  bool Fill() {
    const std::vector<uint16_t> nothing(kTurns * turn_ / sizeof(uint16_t), kNothing);
    const int32_t counters[] = {0, 0, 0, static_cast<int32_t>(turn_), 0};
    const size_t addresses = 3 * workers_ + 1;
    std::vector<void*> table(addresses, nullptr);
    std::copy(addresses_.begin(), addresses_.end(), table.begin() + 2 * workers_);
    if (!Succeeds(cudaMalloc(&table_, addresses * sizeof(void*) + sizeof(counters)))) {
      return false;
    }
    table.back() = table_ + addresses;
    return Succeeds(cudaMemcpy(memory_, nothing.data(), kTurns * turn_, cudaMemcpyHostToDevice)) &&
           Succeeds(cudaMemcpy(table_, table.data(), addresses * sizeof(void*), cudaMemcpyHostToDevice)) &&
           Succeeds(cudaMemcpy(table.back(), counters, sizeof(counters), cudaMemcpyHostToDevice)) &&
           Succeeds(cudaDeviceSynchronize());
  }

  const int worker_, workers_;
  /* Bytes of a buffer: one part for each worker's tensor. */
  const int64_t turn_;
  bool is_ready_ = false;
  void* memory_ = nullptr;
  void** table_ = nullptr;
  std::vector<void*> addresses_, opened_;
};

std::unique_ptr<PeerSums>& OfThread() {
  static thread_local std::unique_ptr<PeerSums> sums;
  return sums;
}

}  // namespace

void PreparePeerSums(int worker, int workers, ncclComm_t communicator, cudaStream_t stream) {
  if (workers != 2 && workers != 4 && workers != 8) {
    return;
  }
  auto sums = std::make_unique<PeerSums>(worker, workers, communicator, stream);
  if (sums->is_ready()) {
    OfThread() = std::move(sums);
  }
}

int64_t PeerSumsLimit() { return OfThread() ? OfThread()->limit() : 0; }

bool SumOverPeers(const void* from, void* to, int64_t count, bool is_bfloat16, cudaStream_t stream) {
  const int64_t bytes = count * static_cast<int64_t>(sizeof(uint16_t));
  const auto is_aligned = [](const void* each) { return reinterpret_cast<uintptr_t>(each) % kAlignment == 0; };
  if (count == 0 || bytes > PeerSumsLimit() || count % kNarrowestRow != 0 || !is_aligned(from) || !is_aligned(to)) {
    return false;
  }
  if (is_bfloat16) {
    OfThread()->Sum<nv_bfloat16>(from, to, count, stream);
  } else {
    OfThread()->Sum<half>(from, to, count, stream);
  }
  return true;
}

}  // namespace mlc_bazel
