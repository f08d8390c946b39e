// A program that uses threads, exceptions and mathematics of the C++ and C libraries, through its own shared library.
#include <cmath>
#include <iostream>
#include <thread>

#include "tests/toolchains/greeting.h"

int main() {
  bool caught = false;
  std::thread thread([&] {
    try {
      greeting("");
    } catch (const std::invalid_argument& error) {
      caught = true;
    }
  });
  thread.join();
  std::cout << greeting("world") << " " << std::sqrt(2.25) << " " << __FILE__ << " " << __DATE__ << std::endl;
  return caught ? 0 : 1;
}
