//! Which device gets which program.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::xdp::XdpLink;
use aya::programs::{LinkOrder, TcAttachType, XdpMode};

use super::programs::{Link as LinkLayer, Programs};
use crate::io::interfaces::{Interfaces, Link};
use crate::io::sieve::in_full;

/// Where SYNs are answered. The segments that end handshakes are seen behind the driver in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BpfHook {
    /// In the driver of devices that have hardware below them and can, else behind it.
    #[default]
    Auto,
    /// In the driver of every device but loopback: an error where a driver cannot.
    Xdp,
    /// Behind the driver, at tcx ingress.
    Tc,
}

/// The programs' places, gone with this.
#[derive(Default)]
pub(super) struct Attached {
    by_device: HashMap<u32, Device>,
}

struct Device {
    mac: Option<[u8; 6]>,
    _tc: SchedClassifierLink,
    _xdp: Option<XdpLink>,
}

impl Attached {
    /// Brings the programs to every device that should have them and has not, and forgets those that are gone.
    ///
    /// # Errors
    /// The first device that failed. The others have been tried too.
    pub(super) fn update(
        &mut self,
        programs: &mut Programs,
        interfaces: &Interfaces,
        only: &[String],
        hook: BpfHook,
    ) -> io::Result<()> {
        let wanted = |link: &&Link| link.up && link.master.is_none() && (only.is_empty() || only.contains(&link.name));
        self.by_device.retain(|index, _| interfaces.by_index(*index).is_some());
        let mut outcome = Ok(());
        for link in interfaces.links().filter(wanted) {
            if self.by_device.contains_key(&link.index) {
                continue;
            }
            match attach(programs, interfaces, link, hook) {
                Ok(device) => {
                    self.by_device.insert(link.index, device);
                }
                Err(error) => {
                    let told = io::Error::new(error.kind(), format!("{}: {error}", link.name));
                    outcome = outcome.and(Err(told));
                }
            }
        }
        outcome
    }

    /// Link-layer addresses of the devices whose drivers have a program.
    pub(super) fn macs(&self) -> Vec<[u8; 6]> {
        self.by_device.values().filter_map(|device| device.mac).collect()
    }
}

fn attach(programs: &mut Programs, interfaces: &Interfaces, link: &Link, hook: BpfHook) -> io::Result<Device> {
    let layer = if link.has_link_header() { LinkLayer::Ethernet } else { LinkLayer::None };
    let tc = programs.behind_driver(layer)?;
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = tc.attach_with_options(&link.name, TcAttachType::Ingress, options).map_err(in_full)?;
    let _tc = tc.take_link(id).map_err(in_full)?;
    let in_driver = layer == LinkLayer::Ethernet
        && !link.loopback
        && match hook {
            BpfHook::Tc => false,
            BpfHook::Xdp => true,
            BpfHook::Auto => has_hardware(link) && !carries_vlans(link, interfaces),
        };
    let Some(mac) = link.mac.filter(|_| in_driver) else { return Ok(Device { mac: None, _tc, _xdp: None }) };
    let xdp = programs.at_driver()?;
    match xdp.attach_to_if_index(link.index, XdpMode::Driver) {
        Ok(id) => Ok(Device { mac: Some(mac), _tc, _xdp: Some(xdp.take_link(id).map_err(in_full)?) }),
        Err(_) if hook == BpfHook::Auto => Ok(Device { mac: None, _tc, _xdp: None }),
        Err(error) => Err(in_full(error)),
    }
}

/// Devices without any, such as veth, lose more by a program in their driver than they gain.
fn has_hardware(link: &Link) -> bool {
    Path::new("/sys/class/net").join(&link.name).join("device").exists()
}

/// The driver may have taken the tag off a frame, and then it cannot be told whose it is.
fn carries_vlans(link: &Link, interfaces: &Interfaces) -> bool {
    interfaces.links().any(|other| other.vlan.is_some_and(|vlan| vlan.parent == Some(link.index)))
}
