/* Features of libbacktrace on Linux x86-64: memory from mmap, threads with atomics. */
#define BACKTRACE_SUPPORTED 1
#define BACKTRACE_USES_MALLOC 0
#define BACKTRACE_SUPPORTS_THREADS 1
#define BACKTRACE_SUPPORTS_DATA 1
