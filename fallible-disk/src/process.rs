//! The process that answers the kernel.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use fuser::{Config, MountOption, Session};
use rustix::mount::{UnmountFlags, unmount};

use crate::Disk;
use crate::filesystem::Served;
use crate::power::Power;

/// Set for the process: where the disk is to be mounted.
pub(crate) const AT: &str = "FALLIBLE_DISK_AT";
/// The answer to what was done.
pub(crate) const DONE: &str = "done";
/// The answer to a question.
pub(crate) const YES: &str = "yes";
const NO: &str = "no";

/// What the test `disk_process` calls, see the [crate](crate). Where nobody wants a disk of it, it proves that one can be
/// had.
///
/// # Panics
/// When a disk can't be mounted or does not keep a file.
pub fn process() {
    if let Some(at) = std::env::var_os(AT) {
        let control = io::stdin().as_fd().try_clone_to_owned().unwrap();
        return answer(Path::new(&at), UnixStream::from(control)).unwrap();
    }
    let disk = Disk::mount().unwrap();
    std::fs::write(disk.path().join("file"), "kept").unwrap();
    assert_eq!(std::fs::read(disk.path().join("file")).unwrap(), b"kept");
}

/// Serves the disk until nobody asks for it any more.
fn answer(at: &Path, mut control: UnixStream) -> io::Result<()> {
    let power = Arc::new(Mutex::new(Power::on()));
    if let Err(error) = serve(Served(Arc::clone(&power)), at) {
        return writeln!(control, "{error}");
    }
    writeln!(control, "{DONE}")?;
    let commands = BufReader::new(control.try_clone()?).lines();
    for command in commands.map_while(Result::ok) {
        // Who asked may be gone.
        let _ = writeln!(control, "{}", obey(&mut power.lock().unwrap(), &command));
    }
    if unmount(at, UnmountFlags::DETACH).is_err() {
        // Others than root have mounted it with this program, too.
        Command::new("fusermount3").args(["-u", "-z"]).arg(at).status()?;
    }
    Ok(())
}

fn serve(served: Served, at: &Path) -> io::Result<()> {
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("fallible-disk".to_owned())];
    let session = Session::new(served, at, &config)?;
    std::thread::Builder::new().name("disk".to_owned()).spawn(move || session.run())?;
    Ok(())
}

fn obey(power: &mut Power, command: &str) -> &'static str {
    let mut words = command.split(' ');
    let name = words.next().unwrap_or_default();
    let mut number = || words.next().and_then(|word| word.parse().ok()).unwrap_or_default();
    match name {
        "cut" => power.cut(number()),
        "cut_after" => power.cut_after(number(), number()),
        "is_cut" => return if power.is_cut() { YES } else { NO },
        "restore" => power.restore(),
        "fail_sync_after" => power.fail_sync_after(number(), number()),
        "ignore_syncs" => power.ignore_syncs(),
        _ => return NO,
    }
    DONE
}
