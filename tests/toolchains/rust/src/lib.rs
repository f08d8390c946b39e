//! Adds in C and writes in Rust.

use std::os::raw::{c_char, c_uint};

include!(concat!(env!("OUT_DIR"), "/require.rs"));

extern "C" {
    fn add(one: c_uint, other: c_uint) -> c_uint;
}

/// Writes the sum in decimal digits with a NUL behind, and gives back how many digits there are.
///
/// # Safety
///
/// `text` must have room for `room` characters.
#[no_mangle]
pub unsafe extern "C" fn sum_to_text(one: c_uint, other: c_uint, text: *mut c_char, room: usize) -> usize {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(add(one, other));
    require(digits.len() < room);
    std::ptr::copy_nonoverlapping(digits.as_ptr() as *const c_char, text, digits.len());
    *text.add(digits.len()) = 0;
    digits.len()
}

/// Whether a panic stays within: it unwinds up to here.
#[no_mangle]
pub extern "C" fn panic_is_caught() -> bool {
    std::panic::catch_unwind(|| panic!("on purpose")).is_err()
}
