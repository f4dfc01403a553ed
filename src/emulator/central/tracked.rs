//! The state with a memory of whether it was changed.

use std::ops::Deref;

use super::state::CentralState;

/// Reading is free; writing goes through [`Tracked::edit`] and is remembered.
pub(super) struct Tracked<'a> {
    state: &'a mut CentralState,
    changed: bool,
}

impl<'a> Tracked<'a> {
    /// An unchanged state.
    pub fn new(state: &'a mut CentralState) -> Self {
        Self { state, changed: false }
    }

    /// The state for writing.
    pub fn edit(&mut self) -> &mut CentralState {
        self.changed = true;
        self.state
    }

    /// Whether anything asked to write.
    pub fn is_changed(&self) -> bool {
        self.changed
    }
}

impl Deref for Tracked<'_> {
    type Target = CentralState;

    fn deref(&self) -> &CentralState {
        self.state
    }
}
