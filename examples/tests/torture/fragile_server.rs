//! The HTTP server, which kills itself with SIGKILL at a fail point.
//!
//! The file that `FAIL_POINT_FILE` names says at which one; while it is empty or absent, nothing happens. With
//! `FAIL_POINT_LOG`, the name of every point that is passed is appended to that file.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use paas_core::Result;
use paas_core::testing::fail_point::{FailPointStore, FailPoints, Hook};
use paas_core::testing::front::Front;
use paas_http::{Adapters, Server, ServerConfig};
use paas_proxy::Launcher;
use rustix::process::{Signal, getpid, kill_process};

fn main() -> Result<()> {
    paas_proxy::run_if_asked();
    let _log = paas_http::log_to_stderr();
    let config = ServerConfig::load(None, std::env::vars_os())?;
    let launcher = Launcher::find().unwrap_or(Launcher::CurrentProgram);
    let hook = hook()?;
    Server::serve_with(config, launcher, |adapters| fragile(adapters, &hook))
}

fn fragile(adapters: Adapters, hook: &Hook) -> Adapters {
    macro_rules! points {
        ($adapter:ident) => {
            Arc::new(FailPoints::new(adapters.$adapter, hook.clone()))
        };
    }
    Adapters {
        store: Arc::new(Front(FailPointStore::new(adapters.store, hook.clone()))),
        git: points!(git),
        planner: points!(planner),
        image_builder: points!(image_builder),
        runtime: points!(runtime),
        dns: points!(dns),
        ingress: points!(ingress),
        logs: points!(logs),
    }
}

fn hook() -> Result<Hook> {
    let armed = std::env::var_os("FAIL_POINT_FILE").unwrap_or_default();
    let log = std::env::var_os("FAIL_POINT_LOG").map(|path| {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        file.map(Mutex::new).map_err(paas_core::error::map("fragile_server.log"))
    });
    let log = log.transpose()?;
    Ok(Arc::new(move |point| {
        if let Some(log) = &log {
            // A line that is lost fails the test that looks for it.
            let _ = writeln!(log.lock().unwrap_or_else(PoisonError::into_inner), "{point}");
        }
        if std::fs::read_to_string(&armed).is_ok_and(|armed| armed == point) {
            // Nothing comes behind it.
            let _ = kill_process(getpid(), Signal::KILL);
        }
    }))
}
