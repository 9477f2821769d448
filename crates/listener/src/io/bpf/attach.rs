//! Which device gets which program.

use std::collections::HashMap;
use std::io;

use aya::programs::links::{FdLink, LinkError};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::xdp::XdpLink;
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode};

use super::pins::{Kind, Pins};
use super::programs::{Link as LinkLayer, Programs};
use crate::io::estate::BpfEstate;
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

/// The programs' places, gone with this unless they are pinned.
pub(super) struct Attached {
    by_device: HashMap<u32, Device>,
    /// Where the places of a predecessor are that are not to be left there.
    passing: Option<Pins>,
    /// Where a successor may find them, gone with the next one or with this.
    lent: Option<Pins>,
    pins: Option<Pins>,
}

struct Device {
    mac: Option<[u8; 6]>,
    tc: SchedClassifierLink,
    xdp: Option<XdpLink>,
}

impl Attached {
    /// Nothing is attached yet but what a predecessor left.
    pub(super) fn new(passing: Option<Pins>, pins: Option<Pins>) -> Attached {
        Attached { by_device: HashMap::new(), passing, lent: None, pins }
    }

    /// Our ring of reports takes the place of a predecessor's.
    pub(super) fn reports_came(&self) -> io::Result<()> {
        self.pins.as_ref().map_or(Ok(()), Pins::reports_came)
    }

    /// All that a predecessor had is ours, or not wanted: nothing stays where it was.
    pub(super) fn passed(&mut self) {
        if let Some(mut passing) = self.passing.take() {
            passing.leave(false);
        }
    }

    /// Where a successor finds the places, which are put there if they are not pinned.
    ///
    /// # Errors
    /// Of pinning. A place with which that fails is lost: [`update`](Attached::update) makes a new one.
    pub(super) fn lend(&mut self) -> io::Result<BpfEstate> {
        if let Some(pins) = &self.pins {
            return pins.estate();
        }
        let dir = Pins::passing()?;
        self.pin_all(&dir)?;
        let estate = dir.estate();
        // From here on the directory is the successor's; should there be none, the next one gets one of its own.
        self.lent = Some(dir);
        estate
    }

    /// A successor that was lent the places has given up.
    pub(super) fn take_back(&mut self) {
        self.lent = None;
    }

    /// Puts the places into this directory too.
    fn pin_all(&mut self, dir: &Pins) -> io::Result<()> {
        fn pinned<L>(dir: &Pins, kind: Kind, device: u32, link: L) -> io::Result<L>
        where
            L: TryFrom<FdLink, Error = LinkError>,
            FdLink: TryFrom<L, Error = LinkError>,
        {
            L::try_from(dir.keep(kind, device, FdLink::try_from(link).map_err(in_full)?)?).map_err(in_full)
        }
        let indices: Vec<u32> = self.by_device.keys().copied().collect();
        for index in indices {
            let Some(Device { mac, tc, xdp }) = self.by_device.remove(&index) else { continue };
            let tc = pinned(dir, Kind::Tc, index, tc)?;
            let xdp = xdp.map(|link| pinned(dir, Kind::Xdp, index, link)).transpose()?;
            self.by_device.insert(index, Device { mac, tc, xdp });
        }
        Ok(())
    }

    /// Whether all this outlives us in good order, if it is pinned. A crash always leaves it.
    pub(super) fn leave(&mut self, yes: bool) {
        self.pins.iter_mut().for_each(|pins| pins.leave(yes));
    }

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
        let wanted = |link: &&Link| is_wanted(link, only);
        self.by_device.retain(|index, device| {
            let stands =
                |link: &Link| device.mac.is_none() || hook != BpfHook::Auto || may_have_driver(link, interfaces);
            interfaces.by_index(*index).is_some_and(stands)
        });
        if let Some(pins) = &self.pins {
            let wanted = interfaces.links().filter(wanted).map(|link| link.index);
            let keep: Vec<u32> = self.by_device.keys().copied().chain(wanted).collect();
            pins.keep_only(&keep);
        }
        let mut outcome = Ok(());
        for link in interfaces.links().filter(wanted) {
            if self.by_device.contains_key(&link.index) {
                continue;
            }
            match self.attach(programs, interfaces, link, hook) {
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

    fn attach(
        &self,
        programs: &mut Programs,
        interfaces: &Interfaces,
        link: &Link,
        hook: BpfHook,
    ) -> io::Result<Device> {
        let tc = self.behind_driver(programs.behind_driver(layer_of(link))?, link)?;
        let Some(mac) = driver_address(link, interfaces, hook) else {
            // A predecessor may have been told otherwise.
            self.pins.iter().for_each(|pins| pins.remove(Kind::Xdp, link.index));
            return Ok(Device { mac: None, tc, xdp: None });
        };
        if hook == BpfHook::Xdp && !link.has_hardware {
            tracing::warn!(
                interface = link.name,
                "no hardware below it: if it is a veth, answers get lost unless its other end has an XDP program too"
            );
        }
        let xdp = self.in_driver(programs, link, hook)?;
        Ok(Device { mac: xdp.is_some().then_some(mac), tc, xdp })
    }

    /// `None`: where it is only a gain, it cannot be had, and the log says why.
    fn in_driver(&self, programs: &mut Programs, link: &Link, hook: BpfHook) -> io::Result<Option<XdpLink>> {
        let is_only_a_gain = hook == BpfHook::Auto;
        let program = match programs.at_driver() {
            Err(error) if is_only_a_gain => {
                tracing::warn!(interface = link.name, %error, "the program for drivers cannot be loaded: SYNs are answered behind this one");
                return Ok(None);
            }
            loaded => loaded?,
        };
        match self.at_driver(program, link) {
            Err(error) if is_only_a_gain => {
                tracing::info!(interface = link.name, %error, "no program in this driver: SYNs are answered behind it");
                Ok(None)
            }
            placed => placed.map(Some),
        }
    }

    fn behind_driver(&self, program: &mut SchedClassifier, link: &Link) -> io::Result<SchedClassifierLink> {
        let take_over = |program: &mut SchedClassifier, left| {
            let id = program.attach_to_link(left)?;
            program.take_link(id)
        };
        let attach = |program: &mut SchedClassifier| {
            let options = TcAttachOptions::TcxOrder(LinkOrder::first());
            let id = program.attach_with_options(&link.name, TcAttachType::Ingress, options)?;
            program.take_link(id)
        };
        self.place(Kind::Tc, link, program, take_over, attach)
    }

    fn at_driver(&self, program: &mut Xdp, link: &Link) -> io::Result<XdpLink> {
        let take_over = |program: &mut Xdp, left| {
            let id = program.attach_to_link(left)?;
            program.take_link(id)
        };
        let attach = |program: &mut Xdp| {
            let id = program.attach_to_if_index(link.index, XdpMode::Driver)?;
            program.take_link(id)
        };
        self.place(Kind::Xdp, link, program, take_over, attach)
    }

    /// A program's place on a device: the one that a predecessor left, or a new one, which is left to a successor.
    fn place<P, L>(
        &self,
        kind: Kind,
        link: &Link,
        program: &mut P,
        take_over: impl FnOnce(&mut P, L) -> Result<L, ProgramError>,
        attach: impl FnOnce(&mut P) -> Result<L, ProgramError>,
    ) -> io::Result<L>
    where
        L: TryFrom<FdLink, Error = LinkError>,
        FdLink: TryFrom<L, Error = LinkError>,
    {
        let left = self.passing.iter().chain(&self.pins).find_map(|pins| pins.take(kind, link.index));
        // What was left may be on a device of the same number that is gone.
        let taken = left.and_then(|left| take_over(program, L::try_from(left).ok()?).ok());
        let Some(pins) = &self.pins else { return taken.map_or_else(|| attach(program).map_err(in_full), Ok) };
        let new = match taken {
            Some(taken) if self.passing.is_none() => return Ok(taken),
            Some(taken) => taken,
            None => attach(program).map_err(in_full)?,
        };
        pins.remove(kind, link.index);
        let new = FdLink::try_from(new).map_err(in_full)?;
        L::try_from(pins.keep(kind, link.index, new)?).map_err(in_full)
    }

    /// Link-layer addresses of the devices whose drivers have a program.
    pub(super) fn macs(&self) -> Vec<[u8; 6]> {
        self.by_device.values().filter_map(|device| device.mac).collect()
    }
}

/// Loads what the devices that are there need, and attaches nothing.
///
/// # Errors
/// Of loading: the verifier's, or for want of rights. What a driver is to run and cannot be loaded is an error only where that is asked for.
pub(super) fn load_needed(
    programs: &mut Programs,
    interfaces: &Interfaces,
    only: &[String],
    hook: BpfHook,
) -> io::Result<()> {
    for link in interfaces.links().filter(|link| is_wanted(link, only)) {
        programs.behind_driver(layer_of(link))?;
        if driver_address(link, interfaces, hook).is_some() {
            let loaded = programs.at_driver().map(drop);
            if hook == BpfHook::Xdp {
                loaded?;
            }
        }
    }
    Ok(())
}

fn is_wanted(link: &Link, only: &[String]) -> bool {
    link.up && link.master.is_none() && (only.is_empty() || only.contains(&link.name))
}

fn layer_of(link: &Link) -> LinkLayer {
    if link.has_link_header() { LinkLayer::Ethernet } else { LinkLayer::None }
}

/// The address of a device whose driver is to have the program.
fn driver_address(link: &Link, interfaces: &Interfaces, hook: BpfHook) -> Option<[u8; 6]> {
    let in_driver = match hook {
        BpfHook::Tc => false,
        BpfHook::Xdp => true,
        BpfHook::Auto => may_have_driver(link, interfaces),
    };
    link.mac.filter(|_| in_driver && layer_of(link) == LinkLayer::Ethernet && !link.loopback)
}

/// Devices without hardware, such as veth, lose more by a program in their driver than they gain.
fn may_have_driver(link: &Link, interfaces: &Interfaces) -> bool {
    link.has_hardware && !carries_vlans(link, interfaces)
}

/// The driver may have taken the tag off a frame, and then it cannot be told whose it is.
fn carries_vlans(link: &Link, interfaces: &Interfaces) -> bool {
    interfaces.links().any(|other| other.vlan.is_some_and(|vlan| vlan.parent == Some(link.index)))
}
