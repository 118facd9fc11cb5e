//! The DNS services of the core keep the trait's promises.
#![cfg(feature = "testing")]

mod wrapped;

use std::sync::Arc;

use paas_core::TransparentDns;
use paas_core::memory::MemoryDns;
use paas_core::testing::dns_service::DnsHarness;
use wrapped::wrapped;

mod memory {
    use super::*;

    paas_core::conformance!(dns_service, || async {
        let service = Arc::new(MemoryDns::new([192, 0, 2, 10].into()));
        DnsHarness { service, zone: Some("apps.example".parse().unwrap()) }
    });
}

mod transparent {
    use super::*;

    paas_core::conformance!(dns_service, || async {
        DnsHarness { service: Arc::new(TransparentDns), zone: None }
    });
}

mod in_wrappers {
    use super::*;

    paas_core::conformance!(dns_service, || async {
        let service = Arc::new(wrapped(MemoryDns::new([192, 0, 2, 10].into())));
        DnsHarness { service, zone: Some("apps.example".parse().unwrap()) }
    });
}
