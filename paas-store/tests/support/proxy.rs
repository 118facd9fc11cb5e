//! A proxy between store and server that cuts connections at chosen moments.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinHandle;

/// When a connection is cut: by what the client sends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The server gets what is before these bytes, and nothing more.
    Before(&'static [u8]),
    /// The server gets them and what was sent with them; its answer is dropped.
    Answer(&'static [u8]),
    /// The server gets them, and hears no more of the client; nobody waits for its answer.
    After(&'static [u8]),
}

impl Cut {
    fn bytes(self) -> &'static [u8] {
        match self {
            Self::Before(bytes) | Self::Answer(bytes) | Self::After(bytes) => bytes,
        }
    }
}

#[derive(Debug, Default)]
struct Orders {
    /// Each is carried out once.
    cuts: Vec<Cut>,
    is_down: bool,
    connections: Vec<JoinHandle<()>>,
}

/// Forwards TCP connections to the server's socket.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    orders: Arc<Mutex<Orders>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let orders = Arc::new(Mutex::new(Orders::default()));
        let socket = super::socket(&super::folder());
        let accepting = tokio::spawn({
            let orders = Arc::clone(&orders);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let mut locked = orders.lock().unwrap();
                    if !locked.is_down {
                        let serving = serve(client, socket.clone(), Arc::clone(&orders));
                        locked.connections.push(tokio::spawn(serving));
                    }
                }
            }
        });
        Self { port, orders, accepting }
    }

    /// Where `database` is reached through it.
    pub fn url(&self, database: &super::Database) -> String {
        format!("host=127.0.0.1 port={} user=postgres dbname={}", self.port, database.name)
    }

    /// Cuts the next connection on which this comes.
    pub fn cut(&self, cut: Cut) {
        self.orders.lock().unwrap().cuts.push(cut);
    }

    /// True once every cut has been made.
    pub fn has_cut(&self) -> bool {
        self.orders.lock().unwrap().cuts.is_empty()
    }

    /// Cuts every connection, and with `is_down` every one to come.
    pub fn cut_all(&self, is_down: bool) {
        let mut orders = self.orders.lock().unwrap();
        orders.is_down = is_down;
        orders.connections.drain(..).for_each(|connection| connection.abort());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut_all(true);
    }
}

async fn serve(mut client: TcpStream, socket: PathBuf, orders: Arc<Mutex<Orders>>) {
    let Ok(mut server) = UnixStream::connect(socket).await else { return };
    let (mut from_client, mut from_server) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let Ok(read @ 1..) = read else { return };
                let bytes = &from_client[..read];
                let cut = take(&orders, bytes);
                let sent = match cut {
                    Some((Cut::Before(_), at)) => server.write_all(&bytes[..at]).await,
                    _ => server.write_all(bytes).await,
                };
                match cut {
                    None if sent.is_ok() => {}
                    Some((Cut::Answer(_), _)) => {
                        let _ = server.read(&mut from_server).await;
                        return;
                    }
                    _ => return,
                }
            }
            read = server.read(&mut from_server) => {
                let Ok(read @ 1..) = read else { return };
                if client.write_all(&from_server[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// The cut for what was read, and where in it.
fn take(orders: &Mutex<Orders>, bytes: &[u8]) -> Option<(Cut, usize)> {
    let cuts = &mut orders.lock().unwrap().cuts;
    let place = |cut: &Cut| bytes.windows(cut.bytes().len()).position(|window| window == cut.bytes());
    let index = cuts.iter().position(|cut| place(cut).is_some())?;
    let cut = cuts.remove(index);
    let at = place(&cut)?;
    Some((cut, at))
}
