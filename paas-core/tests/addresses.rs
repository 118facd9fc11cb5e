//! Addresses: an org's subnet, what is given, what rests, and what happens when there is none left.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod world;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use paas_core::{AddressPool, Fault, Kind, OrgId};
use world::{World, live, new_app};

fn pool(address: [u8; 4], prefix: u8, subnet_prefix: u8) -> paas_core::Result<AddressPool> {
    AddressPool::new(Ipv4Addr::from(address), prefix, subnet_prefix)
}

#[test]
fn a_pool_is_a_range_of_subnets() {
    for (prefix, subnet_prefix) in [(7, 24), (25, 24), (16, 29), (0, 24), (33, 34)] {
        assert_eq!(pool([10, 0, 0, 0], prefix, subnet_prefix).unwrap_err().kind(), Kind::Invalid);
    }
    assert!(pool([10, 181, 0, 1], 16, 24).is_err(), "not the first address");
    assert!(pool([10, 181, 1, 0], 16, 24).is_err(), "not the first address");
    let whole = pool([10, 0, 0, 0], 8, 28).unwrap();
    assert_eq!(whole.subnets(), 1 << 20);
    assert_eq!(whole.subnet((1 << 20) - 1).unwrap().to_string(), "10.255.255.240/28");
    assert!(whole.subnet(1 << 20).is_none());
    let one = pool([192, 168, 7, 0], 24, 24).unwrap();
    assert_eq!(one.subnets(), 1);
    let hosts: Vec<_> = one.subnet(0).unwrap().hosts().collect();
    assert_eq!((hosts[0], hosts[252]), (Ipv4Addr::new(192, 168, 7, 2), Ipv4Addr::new(192, 168, 7, 254)));
    assert_eq!(hosts.len(), 253);
}

#[tokio::test(start_paused = true)]
async fn a_full_network_is_the_platforms_fault_until_an_address_has_rested() {
    let mut world = World::new();
    world.settings.address_pool = pool([10, 9, 0, 0], 24, 28).unwrap();
    world.settings.address_rest = Duration::from_secs(3600);
    world.push_page("one");
    let platform = world.platform().await;
    for number in 0..13 {
        live(&platform, &format!("app-{number}")).await;
    }
    let addresses: BTreeSet<_> =
        world.host.instances().iter().map(|instance| instance.address.ip()).collect();
    assert_eq!(addresses.len(), 13);
    let extra = platform.apps().create(new_app("extra")).await.unwrap().deployment.unwrap();
    let error = extra.outcome().await.unwrap_err();
    assert_eq!((error.kind(), error.whose()), (Kind::Unavailable, Fault::Platform));
    assert!(error.hinted().is_some());

    let freed = platform.apps().get("app-3").await.unwrap().status.instance.unwrap().address;
    platform.apps().delete("app-3").await.unwrap().outcome().await.unwrap();
    let early = platform.deploy("extra").await.unwrap();
    early.outcome().await.expect_err("requests of the old route may still be on their way");
    tokio::time::sleep(Duration::from_secs(3600)).await;
    platform.deploy("extra").await.unwrap().outcome().await.unwrap();
    assert_eq!(platform.apps().get("extra").await.unwrap().status.instance.unwrap().address, freed);
}

#[tokio::test(start_paused = true)]
async fn each_org_has_a_subnet_of_its_own_while_there_is_one() {
    let mut world = World::new();
    world.settings.address_pool = pool([10, 9, 0, 0], 27, 28).unwrap();
    world.push_page("one");
    let platform = world.platform().await;
    let mut subnets = BTreeSet::new();
    for number in 1..=3 {
        let org: OrgId = format!("org_{number:026}").parse().unwrap();
        let created = platform.org(&org).create(new_app(&format!("app-{number}"))).await.unwrap();
        let outcome = created.deployment.unwrap().outcome().await;
        match platform.org(&org).get(&created.app).await.unwrap().status.instance {
            Some(instance) => {
                let std::net::IpAddr::V4(address) = instance.address.ip() else { panic!("{instance:?}") };
                subnets.insert(u32::from(address) >> 4);
            }
            None => assert_eq!(outcome.unwrap_err().whose(), Fault::Platform),
        }
    }
    assert_eq!(subnets.len(), 2);
}
