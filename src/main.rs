//! The `tollgate` binary.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // One provider for the whole process; an error says that it is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tollgate::cli::run()
}
