// Shares work between threads, for as many seconds as the argument says, in calls with few and with many parts. Prints a
// line for each part that did not run once before its call returned. With a second argument, so many times afterwards, a
// forked process shares work too; prints a line for each that does not end.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "src/cpu/threads.h"

namespace {

void Share(int parts) {
  mlc_bazel::cpu::Parallel(parts, 1e9, [](int64_t) {
    for (volatile int i = 0; i < 2000; ++i) {
    }
  });
}

}  // namespace

int main(int count, char** arguments) {
  constexpr int kCounts[] = {2, 3, 64, 5, 200, 2, 17, 9}, kMost = 256;
  static std::atomic<int> runs[kMost];
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(std::atoi(arguments[1]));
  for (long call = 0; std::chrono::steady_clock::now() < end; ++call) {
    const int parts = kCounts[call % 8];
    for (auto& each : runs) each = 0;
    mlc_bazel::cpu::Parallel(parts, 1e9, [](int64_t index) {
      if (index < kMost) ++runs[index];
      for (volatile int i = 0; i < 20; ++i) {
      }
    });
    for (int index = 0; index < kMost; ++index)
      if (const int found = runs[index]; found != (index < parts))
        std::printf("call %ld of %d parts: part %d ran %d times\n", call, parts, index, found);
  }
  for (int number = 0; count > 2 && number < std::atoi(arguments[2]); ++number) {
    Share(16);
    const pid_t child = fork();
    if (child == 0) {
      alarm(10);
      for (int i = 0; i < 3; ++i) Share(16);
      _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (status) std::printf("forked process %d ended with status %d\n", number, status);
  }
  std::puts("end");
  std::fflush(stdout);
  // Its threads use what an ordinary exit would destroy.
  std::_Exit(0);
}
