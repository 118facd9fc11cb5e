//! git's protocol: which refs there are, and one commit's pack.

use std::io::BufRead;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use gix::ObjectId;
use gix::bstr::{BString, ByteSlice as _};
use gix::progress::Discard;
use gix::protocol::fetch::negotiate::{Action, Round, one_round};
use gix::protocol::fetch::{Arguments, Negotiate, Response, Shallow, Tags};
use gix::protocol::handshake::Ref;
use gix::protocol::ls_refs::RefPrefixes;
use gix::protocol::transport::client::blocking_io::http::Transport;
use gix::protocol::transport::{Protocol, Service};
use gix::protocol::{Handshake, LsRefsCommand};
use paas_core::{Repository, Result};

use crate::call::Call;
use crate::errors;
use crate::pack::store;
use crate::transport::HttpTransport;

/// The most bytes of a list of refs.
const MAX_REFS_BYTES: u64 = 32 << 20;

/// A connection to a repository's server, after the first exchange.
pub(crate) struct Remote {
    call: Arc<Call>,
    transport: Transport<HttpTransport>,
    handshake: Handshake,
}

impl Remote {
    pub(crate) fn connect(call: Arc<Call>, http: HttpTransport, repository: &Repository) -> Result<Self> {
        let url = gix::url::parse(repository.url.as_str()).map_err(|error| call.failure(error))?;
        call.allow(MAX_REFS_BYTES);
        let mut transport = Transport::new_http(http, url, Protocol::V2, false);
        // A missing or refused token is an error of the transport: gix is never asked for credentials.
        let authenticate = |_| Ok(None);
        let handshake = gix::protocol::handshake(
            &mut transport,
            Service::UploadPack,
            authenticate,
            Vec::new(),
            &mut Discard,
        );
        let handshake = handshake.map_err(|error| call.failure(error))?;
        Ok(Self { call, transport, handshake })
    }

    /// The refs that start with one of `prefixes`; an old server may answer more.
    pub(crate) fn refs(&mut self, prefixes: &[String]) -> Result<Vec<Ref>> {
        if let Some(refs) = self.handshake.refs.take() {
            return Ok(refs);
        }
        let mut wanted = RefPrefixes::new();
        wanted.extend(prefixes.iter().map(|prefix| BString::from(prefix.as_str())));
        LsRefsCommand::new(Some(wanted), &self.handshake.capabilities, agent())
            .invoke_blocking(&mut self.transport, &mut Discard, false)
            .map_err(|error| self.call.failure(error))
    }

    /// Brings one commit, without its history, into the objects at `mirror`. Only what is missing is sent:
    /// `present` are the commits that are there with all of their files. At most `room` bytes are written.
    pub(crate) fn fetch(
        &mut self,
        mirror: &Path,
        objects: &gix::odb::Handle,
        commit: ObjectId,
        present: Vec<ObjectId>,
        room: u64,
    ) -> Result<()> {
        // Before the pack there are only lines of text.
        self.call.allow(MAX_REFS_BYTES);
        let max_bytes = self.call.limits().pack_bytes.min(room);
        let options = gix::protocol::fetch::Options {
            shallow_file: mirror.join("shallow"),
            shallow: &Shallow::DepthAtRemote(NonZeroU32::MIN),
            tags: Tags::None,
            reject_shallow_remote: false,
        };
        let context = gix::protocol::fetch::Context {
            handshake: &mut self.handshake,
            transport: &mut self.transport,
            user_agent: agent(),
            trace_packetlines: false,
        };
        let call = &self.call;
        let write = |pack: &mut dyn BufRead, _: &mut dyn gix::DynNestedProgress, _: &AtomicBool| {
            call.allow(max_bytes);
            store(call, pack, objects.clone(), &mirror.join("objects").join("pack"), room)
                .map_err(|error| gix::Error::from_error(call.unreadable(error)))?;
            Ok(true)
        };
        let mut negotiation = OneCommit { commit, present };
        gix::protocol::fetch(&mut negotiation, write, Discard, call.interrupt(), context, options).map_err(
            |error| {
                // The protocol has only text to say this with.
                let text = format!("{error:?}");
                if text.contains("not our ref") || text.contains("unadvertised object") {
                    return errors::commit_not_found(call.operation(), &commit.to_string());
                }
                call.failure(error)
            },
        )?;
        Ok(())
    }
}

fn agent() -> (&'static str, Option<String>) {
    ("agent", Some(concat!("paas/", env!("CARGO_PKG_VERSION")).to_owned()))
}

/// Asks for one commit and tells all that is here at once: nothing is left to negotiate.
struct OneCommit {
    commit: ObjectId,
    present: Vec<ObjectId>,
}

impl Negotiate for OneCommit {
    fn mark_complete_and_common_ref(&mut self) -> gix::Result<Action> {
        Ok(Action::MustNegotiate { remote_ref_target_known: vec![false] })
    }

    fn add_wants(&mut self, arguments: &mut Arguments, _: &[bool]) -> bool {
        arguments.want(self.commit);
        true
    }

    fn one_round(
        &mut self,
        _: &mut one_round::State,
        arguments: &mut Arguments,
        _: Option<&Response>,
    ) -> gix::Result<(Round, bool)> {
        for commit in &self.present {
            arguments.have(commit);
        }
        let haves_sent = self.present.len();
        let round = Round {
            haves_sent,
            in_vain: 0,
            haves_to_send: haves_sent,
            previous_response_had_at_least_one_in_common: false,
        };
        Ok((round, true))
    }
}

/// What a ref points at, a tag's own object left aside: name, where it leads to, commit.
pub(crate) fn unpacked(reference: &Ref) -> (&str, Option<&str>, Option<ObjectId>) {
    match reference {
        Ref::Peeled { full_ref_name, object, .. } | Ref::Direct { full_ref_name, object } => {
            (full_ref_name.to_str().unwrap_or_default(), None, Some(*object))
        }
        Ref::Symbolic { full_ref_name, target, object, .. } => {
            (full_ref_name.to_str().unwrap_or_default(), target.to_str().ok(), Some(*object))
        }
        Ref::Unborn { full_ref_name, target } => {
            (full_ref_name.to_str().unwrap_or_default(), target.to_str().ok(), None)
        }
    }
}
