// Defines the default constructors of string streams, which GCC 9 made library symbols (GLIBCXX_3.4.26), so that
// libraries linked with this also run with GCC 8's libstdc++ (manylinux_2_28).
#include <sstream>

namespace std {
template basic_istringstream<char>::basic_istringstream();
template basic_ostringstream<char>::basic_ostringstream();
template basic_stringstream<char>::basic_stringstream();
}  // namespace std
