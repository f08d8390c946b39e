// C is compiled as C, and sees no C++ header.
#include <math.h>
#include <stdlib.h>

#ifdef __cplusplus
#error "expected C"
#endif

double plain_root(double x) {
  int* restrict unused = malloc(sizeof *unused);
  free(unused);
  return sqrt(x);
}
