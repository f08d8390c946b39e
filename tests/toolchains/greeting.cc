// The library that hello.cc is linked with; throws across its border.
#include "tests/toolchains/greeting.h"

#include <version>

#if __cplusplus < 201709L || !defined(__cpp_lib_span)
#error "expected C++20 with its library"
#endif

std::string greeting(const std::string& whom) {
  if (whom.empty()) throw std::invalid_argument("nobody to greet");
  return "hello " + whom;
}
