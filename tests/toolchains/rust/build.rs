//! Compiles the package's C file, by a path that is another one in every sandbox.

fn main() {
    cc::Build::new().file(concat!(env!("CARGO_MANIFEST_DIR"), "/src/add.c")).compile("add");
}
