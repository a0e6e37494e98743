//! Places that are few, so that nobody takes them all.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::core::holder_of;

/// A number of places, some of which one address may have.
#[derive(Debug)]
pub(crate) struct Places {
    all: usize,
    an_address: usize,
    taken: Mutex<Vec<IpAddr>>,
}

/// One of them, taken while this lives.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    holder: IpAddr,
}

impl Places {
    pub(crate) const fn new(all: usize, an_address: usize) -> Self {
        Self {
            all,
            an_address,
            taken: Mutex::new(Vec::new()),
        }
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        self.lock().len()
    }

    /// Takes a place for `ip`; `None` if it has its share, or there is none left.
    pub(crate) fn take(places: &Arc<Self>, ip: IpAddr) -> Option<Place> {
        let holder = holder_of(ip);
        let mut taken = places.lock();
        let same = taken.iter().filter(|other| **other == holder).count();
        if taken.len() >= places.all || same >= places.an_address {
            return None;
        }
        taken.push(holder);
        drop(taken);
        Some(Place {
            places: Arc::clone(places),
            holder,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<IpAddr>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        if let Some(index) = taken.iter().position(|ip| *ip == self.holder) {
            taken.swap_remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_takes_its_share_and_leaves_the_rest() {
        let places = Arc::new(Places::new(3, 2));
        let take = |ip: &str| Places::take(&places, ip.parse().unwrap());
        let first = take("2001:db8::1").unwrap();
        let _second = take("2001:db8::2").unwrap();
        assert!(take("2001:db8::3").is_none(), "the same /64");
        let _third = take("192.0.2.1").unwrap();
        assert!(take("192.0.2.2").is_none(), "none is left");
        assert_eq!(places.taken(), 3);
        drop(first);
        assert!(take("192.0.2.2").is_some());
        assert_eq!(places.taken(), 2);
    }
}
