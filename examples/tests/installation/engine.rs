//! A way to the real engine that can be cut: to the platform it looks like an engine that is down.

use std::path::Path;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

/// The socket of the engine that tests use.
const ENGINE: &str = "/var/run/docker.sock";

pub struct EngineLine {
    is_cut: watch::Sender<bool>,
}

impl EngineLine {
    /// Listens at `path` and passes everything on to the engine.
    pub fn lay(path: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let (is_cut, watched) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, watched.clone()));
            }
        });
        Self { is_cut }
    }

    /// Ends every connection, and every new one at once.
    pub fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    pub fn mend(&self) {
        self.is_cut.send_replace(false);
    }
}

async fn pass(mut client: UnixStream, mut is_cut: watch::Receiver<bool>) {
    let passing = async {
        let mut engine = UnixStream::connect(ENGINE).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut client, &mut engine).await;
    };
    tokio::select! {
        biased;
        _ = is_cut.wait_for(|is_cut| *is_cut) => {}
        () = passing => {}
    }
}
