//! Where a member lies that a program reads, or why that is not known.

use super::kernel_with;
use crate::{
    kernel::facts::{Fact, KernelFacts, Member},
    model::{MemberPath, Missing},
};

/// A member's offset in bytes, if it is there and of the size that the programs read
/// it with. For one that they only count back from, any size will do: `None`.
///
/// # Errors
///
/// Which member it is, and what is wrong with it.
pub fn offset(
    facts: &KernelFacts,
    member: MemberPath,
    size: impl Into<Option<u32>>,
) -> Result<u32, Missing> {
    let missing = |why| unreadable(facts, member, why);
    match (facts.members.get(member.path), size.into()) {
        (Some(Fact::Known(Member { size: found, .. })), Some(size)) if *found != size => {
            Err(missing(format!(
                "it has {found} bytes here, the probes know it with {size}"
            )))
        }
        (Some(Fact::Known(Member { offset, .. })), _) => Ok(*offset),
        (Some(Fact::Unknown(why)), _) => Err(missing(why.clone())),
        (None, _) => Err(missing("it was not looked up".to_owned())),
    }
}

/// A member that probes cannot read, and why.
pub fn unreadable(facts: &KernelFacts, member: MemberPath, why: String) -> Missing {
    Missing {
        what: member.path.to_owned(),
        why,
        remedy: kernel_with(facts, &["DEBUG_INFO_BTF", "DEBUG_INFO_BTF_MODULES"]),
    }
}
