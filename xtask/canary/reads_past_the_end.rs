//! Reads one byte behind an allocation: what `cargo xtask sanitize` and `cargo xtask valgrind` must find, or they would
//! find nothing.

fn main() {
    let bytes = vec![7u8; 16];
    let behind = bytes.len() * std::env::args().count();
    // SAFETY: none; this is the mistake.
    let byte = unsafe { bytes.as_ptr().add(behind).read_volatile() };
    println!("{byte}");
}
