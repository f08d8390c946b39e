// A library for the platform wheel: auditwheel looks at what it links against.
extern "C" int answer() { return 42; }
