// C++ calls Rust, which calls C. Threads and unwinding of Rust's standard library work with the pinned C library.
#include <cstddef>
#include <cstdio>
#include <cstring>

extern "C" size_t sum_to_text(unsigned one, unsigned other, char* text, size_t room);
extern "C" bool panic_is_caught();

int main() {
  char text[16];
  const size_t digits = sum_to_text(40, 2, text, sizeof text);
  if (digits != 2 || std::strcmp(text, "42") != 0) {
    std::fprintf(stderr, "expected 42, found %s (%zu digits)\n", text, digits);
    return 1;
  }
  if (!panic_is_caught()) {
    std::fprintf(stderr, "expected a panic to be caught\n");
    return 1;
  }
}
