// String streams' default constructors, which became library symbols in GCC 9 (GLIBCXX_3.4.26): defined here, so that
// what is linked with this runs with GCC 8's libstdc++ too (manylinux_2_28).
#include <sstream>

namespace std {
template basic_istringstream<char>::basic_istringstream();
template basic_ostringstream<char>::basic_ostringstream();
template basic_stringstream<char>::basic_stringstream();
}  // namespace std
