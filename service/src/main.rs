//! The command line: arguments in, exit code out.

/// Events are allocated on one thread and freed on another, millions of them; the C library's allocator spends several times as long on that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    daisi_ws_service::cli::main()
}
