//! The program `mlrs-db`.

fn main() {}
