//! A zone as a tree of labels, in which what is between two names is there as well (RFC 8020).

use std::{collections::BTreeMap, net::IpAddr};

use hickory_proto::rr::{Name, RData, Record, rdata};

use super::{NEGATIVE_TTL_SECONDS, TTL_SECONDS};

/// A name's labels in lower case, that nearest to the root first.
pub(super) type Labels = Vec<Vec<u8>>;

/// The labels of `name`.
pub(super) fn labels(name: &Name) -> Labels {
    let mut labels: Labels = name.iter().map(<[u8]>::to_ascii_lowercase).collect();
    labels.reverse();
    labels
}

/// What a name has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Data {
    pub(super) addresses: Vec<IpAddr>,
    /// What it points to, in a reverse zone.
    pub(super) pointer: Option<Name>,
}

/// What there is at a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// The zone's own name.
    Apex(&'a Data),
    /// The name, by itself or by a wildcard; without data it is only on the way to others.
    Here(&'a Data),
    /// Neither it nor anything below it.
    Nothing,
}

/// A zone, of which this server is the authority.
#[derive(Clone, Debug)]
pub(super) struct Zone {
    apex: Name,
    soa: rdata::SOA,
    root: Node,
}

#[derive(Clone, Debug, Default)]
struct Node {
    data: Data,
    children: BTreeMap<Vec<u8>, Self>,
}

impl Zone {
    pub(super) fn new(apex: Name, soa: rdata::SOA) -> Self {
        Self {
            apex,
            soa,
            root: Node::default(),
        }
    }

    /// Puts `data` at the name that is `below` the apex; false if there is some already.
    pub(super) fn insert(&mut self, below: &[Vec<u8>], data: Data) -> bool {
        let mut node = &mut self.root;
        for label in below {
            node = node.children.entry(label.clone()).or_default();
        }
        let free = node.data == Data::default();
        if free {
            node.data = data;
        }
        free
    }

    /// What there is at the name that is `below` the apex.
    ///
    /// A wildcard stands for what is missing directly below the closest name that is there (RFC 4592
    /// section 3.3.1), not for what is below names that are there themselves.
    pub(super) fn find(&self, below: &[Vec<u8>]) -> Found<'_> {
        if below.is_empty() {
            return Found::Apex(&self.root.data);
        }
        let mut node = &self.root;
        for label in below {
            match node.children.get(label) {
                Some(child) => node = child,
                None => {
                    return match node.children.get(b"*".as_slice()) {
                        Some(wildcard) => Found::Here(&wildcard.data),
                        None => Found::Nothing,
                    };
                }
            }
        }
        Found::Here(&node.data)
    }

    /// The SOA, for an answer.
    pub(super) fn soa(&self, owner: Name) -> Record {
        Record::from_rdata(owner, TTL_SECONDS, RData::SOA(self.soa.clone()))
    }

    /// The SOA that says for how long a denial may be kept (RFC 2308 section 3).
    pub(super) fn denial(&self) -> Record {
        let soa = RData::SOA(self.soa.clone());
        Record::from_rdata(self.apex.clone(), NEGATIVE_TTL_SECONDS, soa)
    }

    /// The NS, which is the machine that answers.
    pub(super) fn name_server(&self, owner: Name) -> Record {
        let server = rdata::NS(self.soa.mname.clone());
        Record::from_rdata(owner, TTL_SECONDS, RData::NS(server))
    }
}

impl Data {
    pub(super) fn ipv4(&self, owner: &Name) -> Vec<Record> {
        self.records(owner, |address| match address {
            IpAddr::V4(address) => Some(RData::A(rdata::A(*address))),
            IpAddr::V6(_) => None,
        })
    }

    pub(super) fn ipv6(&self, owner: &Name) -> Vec<Record> {
        self.records(owner, |address| match address {
            IpAddr::V6(address) => Some(RData::AAAA(rdata::AAAA(*address))),
            IpAddr::V4(_) => None,
        })
    }

    pub(super) fn pointers(&self, owner: &Name) -> Vec<Record> {
        let target = self.pointer.clone().map(rdata::PTR).map(RData::PTR);
        target
            .map(|target| Record::from_rdata(owner.clone(), TTL_SECONDS, target))
            .into_iter()
            .collect()
    }

    fn records(&self, owner: &Name, data: impl Fn(&IpAddr) -> Option<RData>) -> Vec<Record> {
        self.addresses
            .iter()
            .filter_map(data)
            .map(|data| Record::from_rdata(owner.clone(), TTL_SECONDS, data))
            .collect()
    }
}
