// exp, log and pow of glibc 2.29 differ from those before only in how errors are told; here they are bound to the earlier ones, so that what is
// linked with this runs with glibc 2.28 too (manylinux_2_28). The linker's --wrap has every object use it, Rust's and prebuilt ones too.
extern "C" {
double exp_2_2_5(double);
double log_2_2_5(double);
double pow_2_2_5(double, double);
__asm__(".symver exp_2_2_5, exp@GLIBC_2.2.5");
__asm__(".symver log_2_2_5, log@GLIBC_2.2.5");
__asm__(".symver pow_2_2_5, pow@GLIBC_2.2.5");

double __wrap_exp(double x) { return exp_2_2_5(x); }
double __wrap_log(double x) { return log_2_2_5(x); }
double __wrap_pow(double x, double y) { return pow_2_2_5(x, y); }
}
