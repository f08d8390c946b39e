// The interface of the library that hello.cc is linked with.
#pragma once
#include <stdexcept>
#include <string>

// Throws std::invalid_argument if nobody is to be greeted.
__attribute__((visibility("default"))) std::string greeting(const std::string& whom);
