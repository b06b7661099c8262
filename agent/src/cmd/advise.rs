//! `nodemedic advise`

use clap::Args;

use super::{Node, exit::Exit, status::known};
use crate::{
    ailments,
    kernel::netns,
    render::{print, wrap},
    treatment::{Course, Treatment},
};

const WIDTH: usize = 78;

/// Prints lines for a file of /etc/sysctl.d.
#[derive(Debug, Args)]
pub(super) struct Advise {
    #[command(flatten)]
    node: Node,
}

impl Advise {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let courses = known(&self.node)?.courses;
        let active: Vec<_> = courses.iter().filter(|it| it.is_active()).collect();
        if active.is_empty() {
            print("# No treatment is active, so there is nothing to be made to last.\n")?;
            return Ok(Exit::Healthy);
        }
        let own = netns::own()?;
        print(
            &active
                .into_iter()
                .map(|it| lines(it, own))
                .collect::<String>(),
        )?;
        Ok(Exit::Healthy)
    }
}

fn lines(course: &Course, own: u32) -> String {
    let known = ailments::treatments().into_iter();
    let mut treatment = known.filter(|(_, it)| it.name == course.treatment);
    let durable = treatment
        .next()
        .map_or("", |(_, treatment): (_, &Treatment)| treatment.durable);
    let mut text = format!("# {}, treatment {}\n", course.treatment, course.id);
    for line in wrap(durable, WIDTH) {
        text.push_str(&format!("# {line}\n"));
    }
    let switches = ailments::switches();
    for change in &course.changes {
        if switches.iter().any(|switch| switch.key == change.key) {
            // The agent's own, of which no other program knows.
            continue;
        }
        if change.netns == own {
            text.push_str(&format!("{} = {}\n", change.key, change.to));
        } else {
            text.push_str(&format!(
                "# in network namespace {}, whose owner has to set it: {} = {}\n",
                change.netns, change.key, change.to
            ));
        }
    }
    text
}
