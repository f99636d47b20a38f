//! The command line: arguments in, exit code out.

fn main() -> std::process::ExitCode {
    daisi_ws_service::cli::main()
}
