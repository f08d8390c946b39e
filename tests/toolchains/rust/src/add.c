/* The part in C; a message with the file's name, as assertions have it, is where paths get into libraries. */
#include <assert.h>

unsigned add(unsigned one, unsigned other) {
  assert(one + other >= one);
  return one + other;
}
