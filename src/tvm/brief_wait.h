/* Waiting for what usually comes soon, without the time that it takes to wake a thread up. */
#pragma once

#include <chrono>
#include <thread>

namespace mlc_bazel {

/* Returns as soon as it has arrived, at the latest after five milliseconds: a step of a model on several GPUs. Meanwhile
 * other threads may use the core.
 */
template <typename HasArrived>
void WaitBriefly(HasArrived has_arrived) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(5);
  while (!has_arrived() && std::chrono::steady_clock::now() < end) {
    std::this_thread::yield();
  }
}

}  // namespace mlc_bazel
