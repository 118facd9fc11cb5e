//! The proxy as a program. The platform starts it; see `paas_proxy::run_if_asked` for its arguments.

use std::process::ExitCode;

fn main() -> ExitCode {
    paas_proxy::run_if_asked();
    eprintln!(
        "paas-proxy {} is started by the platform. By hand:\n  \
         paas-proxy --run-paas-proxy '{{\"listen\": \"127.0.0.1:8080\", \"directory\": \"/var/lib/paas/proxy\"}}'\n\
         The proxy of a directory is stopped by\n  \
         paas-proxy --stop-paas-proxy /var/lib/paas/proxy",
        env!("CARGO_PKG_VERSION")
    );
    ExitCode::from(2)
}
