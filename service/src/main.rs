//! The command line: arguments in, exit code out.

/// Events are allocated on one thread and freed on another, millions of them; the C library's allocator spends several times as
/// long on that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    // A socket has some kilobytes, so a huge page is touched for a few of them, and is given back only when the last of hundreds
    // is gone. A kernel that does not let a process choose is no reason not to start.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    daisi_ws_service::cli::main()
}
