use std::{
    cell::Cell,
    ops::{Index, IndexMut},
};

use mesh_types::Instant;

use super::machine::Machine;

/// The machines of a fleet. When each is due is asked after everything that happens, and worked out anew for those
/// alone that were touched since.
#[derive(Default)]
pub(super) struct Machines {
    all: Vec<Machine>,
    /// What [`Machine::poll_timeout`] said last; `None`: it may say something else by now.
    due: Vec<Cell<Option<Option<Instant>>>>,
}

impl Machines {
    pub(super) fn push(&mut self, machine: Machine) {
        self.all.push(machine);
        self.due.push(Cell::default());
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Machine> {
        self.all.iter()
    }

    /// When the timers of a machine run next.
    pub(super) fn poll_timeout(&self, index: usize) -> Option<Instant> {
        let due = &self.due[index];
        let said = due.get();
        let now = said.unwrap_or_else(|| self.all[index].poll_timeout());
        due.set(Some(now));
        now
    }
}

impl Index<usize> for Machines {
    type Output = Machine;

    fn index(&self, index: usize) -> &Machine {
        &self.all[index]
    }
}

impl IndexMut<usize> for Machines {
    fn index_mut(&mut self, index: usize) -> &mut Machine {
        self.due[index].set(None);
        &mut self.all[index]
    }
}
