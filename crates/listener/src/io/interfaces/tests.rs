use std::process::Command;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};

use super::*;

fn link(index: u32, up: bool, loopback: bool) -> Link {
    Link {
        index,
        name: format!("if{index}"),
        mtu: 1500,
        up,
        loopback,
        hardware_type: libc::ARPHRD_ETHER,
        mac: None,
        has_hardware: false,
        master: None,
        vlan: None,
        addresses: Vec::new(),
    }
}

fn address(addr: &str, prefix_len: u8) -> Address {
    Address { addr: addr.parse().unwrap(), prefix_len, broadcast: None }
}

fn v4(addr: &str) -> Ipv4Addr {
    addr.parse().unwrap()
}

fn ip(addr: &str) -> IpAddr {
    addr.parse().unwrap()
}

#[test]
fn loopback_network_is_local_as_a_whole_but_for_its_broadcast() {
    let interfaces =
        Interfaces::of(vec![link(1, true, true)], vec![(1, address("127.0.0.1", 8)), (1, address("::1", 128))]);
    assert!(interfaces.is_local(ip("127.0.0.1")));
    assert!(interfaces.is_local(ip("127.99.0.7")));
    assert!(interfaces.is_local(ip("::1")));
    assert!(!interfaces.is_local(ip("127.255.255.255")));
    assert!(interfaces.is_broadcast(v4("127.255.255.255")));
    assert!(!interfaces.is_local(ip("128.0.0.1")));
}

#[test]
fn ordinary_network_has_one_local_address_and_one_broadcast() {
    let interfaces = Interfaces::of(vec![link(2, true, false)], vec![(2, address("198.18.5.1", 24))]);
    assert!(interfaces.is_local(ip("198.18.5.1")));
    assert!(!interfaces.is_local(ip("198.18.5.2")));
    assert!(interfaces.is_broadcast(v4("198.18.5.255")));
    assert!(interfaces.is_broadcast(v4("255.255.255.255")));
    assert!(!interfaces.is_broadcast(v4("198.18.5.254")));
}

#[test]
fn configured_broadcast_counts_and_short_networks_have_none() {
    let odd = Address { broadcast: Some(v4("198.18.9.200")), ..address("198.18.9.1", 31) };
    let interfaces = Interfaces::of(vec![link(2, true, false)], vec![(2, odd), (2, address("198.18.7.7", 32))]);
    assert!(interfaces.is_broadcast(v4("198.18.9.200")));
    assert!(!interfaces.is_broadcast(v4("198.18.9.1")));
    assert!(!interfaces.is_broadcast(v4("198.18.7.7")));
    assert!(interfaces.is_local(ip("198.18.7.7")));
}

#[test]
fn address_of_a_link_that_is_down_is_not_local() {
    let interfaces = Interfaces::of(vec![link(2, false, false)], vec![(2, address("198.18.5.1", 24))]);
    assert!(!interfaces.is_local(ip("198.18.5.1")));
    assert!(!interfaces.is_broadcast(v4("198.18.5.255")));
    assert_eq!(interfaces.by_index(2).unwrap().addresses.len(), 1);
}

#[test]
fn network_of_any_prefix_length_does_not_panic() {
    for prefix_len in 0..=u8::MAX {
        let network = Network::of(v4("198.18.5.1"), prefix_len);
        assert!(network.contains(v4("198.18.5.1")));
    }
    assert_eq!(Network::of(v4("198.18.5.1"), 0).mask, 0);
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[test]
fn a_device_below_is_hardware_and_a_veth_has_none() {
    let mut body = vec![0; IFINFOMSG_LEN];
    body[4..8].copy_from_slice(&2u32.to_ne_bytes());
    assert!(!read_link(&body).unwrap().has_hardware);
    body.extend(attribute(IFLA_PARENT_DEV_NAME, b"0000:00:03.0\0"));
    assert!(read_link(&body).unwrap().has_hardware);

    in_own_namespace(|| {
        ip_command("link add eth0 type veth peer name eth1");
        let interfaces = Interfaces::read().unwrap();
        assert_eq!(interfaces.links().map(|link| link.has_hardware).collect::<Vec<_>>(), [false; 3]);
    });
}

#[test]
fn vlan_attributes_give_parent_and_id() {
    let data = attribute(1, &100u16.to_ne_bytes());
    let info = [attribute(libc::IFLA_INFO_KIND, b"vlan\0"), attribute(libc::IFLA_INFO_DATA, &data)].concat();
    let mut body = vec![0; IFINFOMSG_LEN];
    body[4..8].copy_from_slice(&9u32.to_ne_bytes());
    body.extend(attribute(libc::IFLA_IFNAME, b"eth0.100\0"));
    body.extend(attribute(libc::IFLA_LINK, &2u32.to_ne_bytes()));
    body.extend(attribute(libc::IFLA_LINKINFO, &info));
    let link = read_link(&body).unwrap();
    assert_eq!(link.name, "eth0.100");
    assert_eq!(link.vlan, Some(Vlan { parent: Some(2), id: 100 }));
    for len in 0..body.len() {
        let _ = read_link(&body[..len]); // Whatever it gives, it does not panic.
    }

    body.extend(attribute(libc::IFLA_LINK_NETNSID, &0u32.to_ne_bytes()));
    assert_eq!(read_link(&body).unwrap().vlan, Some(Vlan { parent: None, id: 100 }));
}

/// Runs `test` on a thread with a network namespace of its own. `None` without the right to make one.
fn in_own_namespace<T: Send>(test: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| unshare(CloneFlags::CLONE_NEWNET).is_ok().then(test));
        thread.join().unwrap()
    })
}

/// `ip` runs in the namespace of the calling thread.
fn ip_command(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

fn wait_readable(watch: &Watch) {
    let timeout = PollTimeout::try_from(Duration::from_secs(5)).unwrap();
    assert_eq!(poll(&mut [PollFd::new(watch.as_fd(), PollFlags::POLLIN)], timeout), Ok(1), "no news from the kernel");
}

#[test]
fn snapshot_of_this_host_has_loopback() {
    let interfaces = Interfaces::read().unwrap();
    let lo = interfaces.by_name("lo").unwrap();
    assert!(lo.loopback && lo.has_link_header() && lo.mtu > 0);
    assert_eq!(interfaces.by_index(lo.index).unwrap(), lo);
    assert!(interfaces.by_index(u32::MAX).is_none());
    if lo.up {
        assert!(interfaces.is_local(ip("127.0.0.1")));
    }
}

#[test]
fn snapshot_and_watch_follow_the_configuration() {
    if !nix::unistd::geteuid().is_root() {
        return; // Making a namespace as an ordinary user would take the whole process into a user namespace.
    }
    in_own_namespace(|| {
        let mut watch = Watch::open().unwrap();
        let empty = Interfaces::read().unwrap();
        assert!(!empty.is_local(ip("127.0.0.1")), "lo is down in a new namespace");
        assert!(!watch.changed());

        ip_command("link set lo up");
        ip_command("link add left type veth peer name right");
        ip_command("link set left mtu 1400 up");
        ip_command("addr add 198.18.5.1/24 brd 198.18.5.255 dev left");
        ip_command("addr add 2001:db8::1/64 dev left nodad");
        wait_readable(&watch);
        assert!(watch.changed());
        assert!(!watch.changed(), "drained");

        let interfaces = Interfaces::read().unwrap();
        let left = interfaces.by_name("left").unwrap();
        assert!(left.up && !left.loopback && left.has_link_header());
        assert_eq!((left.mtu, left.master, left.vlan), (1400, None, None));
        assert!(left.addresses.contains(&Address { broadcast: Some(v4("198.18.5.255")), ..address("198.18.5.1", 24) }));
        assert!(interfaces.is_local(ip("198.18.5.1")) && interfaces.is_local(ip("2001:db8::1")));
        assert!(interfaces.is_local(ip("127.0.0.1")) && interfaces.is_broadcast(v4("198.18.5.255")));
        assert!(!interfaces.by_name("right").unwrap().up);
    })
    .expect("root may make a network namespace");
}

#[test]
fn port_of_a_bridge_knows_its_master() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    in_own_namespace(|| {
        ip_command("link add left type veth peer name right");
        if !Command::new("ip").args(["link", "add", "bridge", "type", "bridge"]).status().unwrap().success() {
            return; // A kernel without bridges.
        }
        ip_command("link set left master bridge");
        let interfaces = Interfaces::read().unwrap();
        let bridge = interfaces.by_name("bridge").unwrap();
        assert_eq!(interfaces.by_name("left").unwrap().master, Some(bridge.index));
        assert_eq!(interfaces.by_name("right").unwrap().master, None);
    })
    .expect("root may make a network namespace");
}
