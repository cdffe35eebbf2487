//! Default privileges.
use obyra_evidence::Finding;

use super::levels::{Contents, Levels};
use super::scope::Scope;
use super::shelf::Shelf;
use crate::policy::Policy;

pub(super) fn write(
    scope: &Scope<'_>,
    shelves: &[Shelf<'_>],
    contents: &mut [Contents],
    policy: &mut Policy,
) -> Vec<Finding> {
    let levels = Levels::of(contents.iter().flat_map(|c| c.values()), policy);
    for (shelf, contents) in shelves.iter().zip(contents) {
        for (grantee, content) in contents {
            let (Some(name), Some(level)) = (scope.grantee(*grantee), levels.name(content)) else { continue };
            let role = policy.roles.entry(name.to_owned()).or_default();
            role.schemas.insert(shelf.place.logical.to_owned(), level.to_owned());
        }
    }
    Vec::new()
}
