//! The program: all of it is in `mlrs_db::cli`.

fn main() -> std::process::ExitCode {
    mlrs_db::cli::main()
}
