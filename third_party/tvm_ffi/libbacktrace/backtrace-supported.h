/* What libbacktrace supports on Linux x86-64: memory by mmap, threads by atomics. */
#define BACKTRACE_SUPPORTED 1
#define BACKTRACE_USES_MALLOC 0
#define BACKTRACE_SUPPORTS_THREADS 1
#define BACKTRACE_SUPPORTS_DATA 1
