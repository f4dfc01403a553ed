//! x
use super::world::World;
pub(super) fn accounting_configuration(_world: &World, _at: &str) -> String {
    String::new()
}
