//! A store belongs to the keys that its secrets are sealed with: with others, nothing is started on it.

use serde::{Deserialize, Serialize};

use crate::domain::Secret;
use crate::engine::Services;
use crate::error::{Error, Kind, Result};
use crate::records::{self, Document, Versioned};
use crate::seal::Sealed;
use crate::store::{Batch, Expect, Keys, Scope};

const ID: &str = "installation";
/// What is sealed, and for what: nothing that anybody would want.
const PURPOSE: &str = "installation/key_check";

/// Something that the keys of the store's first start sealed.
#[derive(Debug, Serialize, Deserialize)]
struct KeyCheck {
    sealed: Sealed,
}

impl Document for KeyCheck {
    const KIND: &'static str = "key_check";

    fn scope(&self) -> Scope {
        Scope::System
    }

    fn id(&self) -> String {
        ID.to_owned()
    }

    fn keys(&self) -> Keys {
        Keys::default()
    }
}

/// Opens what the store's first start sealed; seals it when this is the first.
///
/// # Errors
/// `Invalid` with the code `other_key` when the keys don't open it; the store's.
pub(super) async fn check_keys(services: &Services) -> Result<()> {
    if let Some(known) = known(services).await? {
        return open(services, &known);
    }
    let sealed = services.keyring.seal(PURPOSE, &Secret::from(ID))?;
    let first = records::put(&KeyCheck { sealed }, Expect::Absent)?;
    match services.store.commit(Batch { writes: vec![first], ..Batch::default() }).await {
        // Another server of this store has its first start now, too.
        Err(error) if error.kind() == Kind::Conflict => match known(services).await? {
            Some(known) => open(services, &known),
            None => Err(error),
        },
        result => result.map(drop),
    }
}

async fn known(services: &Services) -> Result<Option<KeyCheck>> {
    let known: Option<Versioned<KeyCheck>> = services.records().get(&Scope::System, ID).await?;
    Ok(known.map(|known| known.value))
}

fn open(services: &Services, known: &KeyCheck) -> Result<()> {
    services.keyring.open_sealed(PURPOSE, &known.sealed).map(drop).map_err(|error| {
        Error::invalid("platform.start", "the secrets in this store are sealed with another master key")
            .code("other_key")
            .hint("start with the key that belongs to this store: its backup, or a copy from another of its servers")
            .source(error)
    })
}
