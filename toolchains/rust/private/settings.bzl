"""A constraint for targets that need Rust."""

# Bazel prints the name of a constraint that a target lacks, so it is a message. It may contain neither ":" nor "\\".
NO_RUST = "built on arm64, where rustc is not packaged, build on x86-64, see docs-users-arm64.md"
