//! Why a treatment is not begun.

use std::fmt;

use super::{
    engine::{Ask, Now},
    foreign::{ForeignWrite, Values},
    policy::{Mode, Policy},
};

use crate::model::{AilmentReport, NodeReport, Proposal, Run, RunState, Treatment, Trigger};

/// A reason to do nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The journal cannot be read or written.
    Journal(String),
    /// There is no such ailment or treatment; those there are.
    Unknown(String),
    /// Treatments are paused.
    Paused,
    /// The agent ends, and has put back what there was.
    Ending,
    /// The configuration allows it to nobody.
    Off(String),
    /// The ailment is not measured.
    NotMeasured(String),
    /// The ailment has no treatment on this kernel.
    NoTreatment(String),
    /// It would do harm, or no good.
    Unsafe(String),
    /// Somebody else has written a key of it since the agent began.
    Foreign(ForeignWrite),
    /// All is set already.
    Nothing,
    /// What it would write is not allowed, whatever the configuration says.
    OutOfRange(String),
    /// The node does not have what it is against.
    Healthy(String),
    /// Another treatment writes the same key, or is still watched.
    Busy(u64),
    /// It has just ended.
    CoolDown {
        /// Seconds until it may begin again.
        seconds: u64,
        /// How it ended.
        ended: RunState,
    },
    /// Too many were begun in the last hour.
    HourlyCap(u32),
}

impl Refusal {
    /// Whether it passes of itself, in a minute or two: the ailment is about to be
    /// measured, another treatment is being watched, or the finding was there lately and may
    /// come back.
    pub(super) fn passes(
        &self,
        runs: &[Run],
        report: Option<&NodeReport>,
        found_lately: bool,
    ) -> bool {
        match self {
            Self::Ending => true,
            Self::Healthy(_) => found_lately,
            Self::NotMeasured(ailment) => report.is_none_or(|report| {
                let mut known = report.ailments.iter();
                let ailment = known.find(|it| it.name == *ailment);
                ailment.is_some_and(AilmentReport::is_about_to_be_measured)
            }),
            Self::Busy(id) => {
                let run = runs.iter().find(|run| run.id == *id);
                run.is_some_and(|run| run.state != RunState::Confirmed)
            }
            Self::Journal(_)
            | Self::Unknown(_)
            | Self::Paused
            | Self::Off(_)
            | Self::NoTreatment(_)
            | Self::Unsafe(_)
            | Self::Foreign(_)
            | Self::Nothing
            | Self::OutOfRange(_)
            | Self::CoolDown { .. }
            | Self::HourlyCap(_) => false,
        }
    }

    /// What labels call it.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Journal(_) => "journal",
            Self::Unknown(_) => "unknown",
            Self::Paused => "paused",
            Self::Ending => "ending",
            Self::Off(_) => "off",
            Self::NotMeasured(_) => "not_measured",
            Self::NoTreatment(_) => "no_treatment",
            Self::Unsafe(_) => "unsafe",
            Self::Foreign(_) => "foreign_write",
            Self::Nothing => "nothing_to_do",
            Self::OutOfRange(_) => "out_of_range",
            Self::Healthy(_) => "healthy",
            Self::Busy(_) => "busy",
            Self::CoolDown { .. } => "cool_down",
            Self::HourlyCap(_) => "hourly_cap",
        }
    }

    /// Whether this run is in the way.
    pub(super) fn is_of(&self, run: &Run) -> bool {
        matches!(self, Self::Busy(id) if *id == run.id)
    }

    /// All that labels call one.
    pub const REASONS: [&'static str; 15] = [
        "journal",
        "unknown",
        "paused",
        "ending",
        "off",
        "not_measured",
        "no_treatment",
        "unsafe",
        "foreign_write",
        "nothing_to_do",
        "out_of_range",
        "healthy",
        "busy",
        "cool_down",
        "hourly_cap",
    ];
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Journal(why) => write!(f, "nothing can be recorded, so nothing is done: {why}"),
            Self::Unknown(what) => f.write_str(what),
            Self::Paused => f.write_str("treatments are paused; `nodemedic resume` allows them"),
            Self::Ending => f.write_str("the agent ends; the next one may do it"),
            Self::Off(treatment) => {
                write!(
                    f,
                    "the configuration has {treatment} = \"off\" in [treatments]"
                )
            }
            Self::NotMeasured(ailment) => write!(
                f,
                "{ailment} is not measured; `nodemedic probes` shows what is missing"
            ),
            Self::NoTreatment(ailment) => write!(
                f,
                "no treatment helps against {ailment} on this kernel; see the remedies of \
                 `nodemedic check`"
            ),
            Self::Unsafe(objection) => f.write_str(objection),
            Self::Foreign(write) => write!(
                f,
                "{write}, so it is left alone; `nodemedic treat --force` ignores that"
            ),
            Self::Nothing => f.write_str("all is set already"),
            Self::OutOfRange(changes) => write!(f, "not within what is ever allowed: {changes}"),
            Self::Healthy(ailment) => write!(
                f,
                "{ailment} has no finding that this treats; `nodemedic treat --force` ignores \
                 the verdict"
            ),
            Self::Busy(id) => write!(
                f,
                "treatment {id} is active: wait until it ends, or undo it"
            ),
            Self::CoolDown { seconds, ended } => write!(
                f,
                "the last run ended as {}; the cooldown lasts {seconds} s more, and `nodemedic \
                 treat --force` ignores it",
                ended.name()
            ),
            Self::HourlyCap(most) => write!(f, "{most} were begun in the last hour already"),
        }
    }
}

/// What is known when a treatment is asked for.
pub(super) struct Guard<'a> {
    pub(super) policy: &'a Policy,
    pub(super) runs: &'a [Run],
    pub(super) ask: &'a Ask,
    pub(super) boot: &'a str,
    pub(super) now: Now,
    pub(super) values: &'a Values,
}

impl Guard<'_> {
    /// Whether it may begin, given what it would mean now.
    pub(super) fn check(
        &self,
        treatment: &Treatment,
        proposal: &Proposal,
        ailment: &AilmentReport,
    ) -> Result<(), Refusal> {
        self.mode(treatment.name)?;
        self.sick(proposal, ailment)?;
        if let Some(objection) = &proposal.objection {
            return Err(Refusal::Unsafe(objection.clone()));
        }
        if proposal.changes.is_empty() {
            return Err(Refusal::Nothing);
        }
        if !treatment.allows(&proposal.changes) {
            let changes: Vec<_> = proposal.changes.iter().map(ToString::to_string).collect();
            return Err(Refusal::OutOfRange(changes.join(", ")));
        }
        self.untouched(proposal)?;
        self.alone(proposal)?;
        self.rested(treatment.name)?;
        self.seldom()
    }

    fn mode(&self, treatment: &str) -> Result<(), Refusal> {
        match self.policy.mode(treatment) {
            Mode::Off => Err(Refusal::Off(treatment.to_owned())),
            Mode::DryRun | Mode::Manual | Mode::Alert | Mode::Auto => Ok(()),
        }
    }

    fn sick(&self, proposal: &Proposal, ailment: &AilmentReport) -> Result<(), Refusal> {
        let is_against = |kind: &String| proposal.against.contains(kind);
        let mut kinds = ailment.findings.iter().map(|finding| &finding.kind);
        if self.ask.force || kinds.any(is_against) {
            Ok(())
        } else {
            Err(Refusal::Healthy(ailment.name.clone()))
        }
    }

    /// Two that write one key take turns, and neither has what it wants.
    fn untouched(&self, proposal: &Proposal) -> Result<(), Refusal> {
        match self.values.foreign(&proposal.changes) {
            Some(write) if !self.ask.force => Err(Refusal::Foreign(write.clone())),
            Some(_) | None => Ok(()),
        }
    }

    /// Only one writes a key, and only one is watched: else nobody could tell which has
    /// helped, or harmed.
    fn alone(&self, proposal: &Proposal) -> Result<(), Refusal> {
        let active = self.runs.iter().filter(|run| run.is_active());
        let in_the_way = |run: &&Run| {
            run.state != RunState::Confirmed
                || run.treatment == proposal.treatment
                || run.touches(&proposal.changes)
        };
        match active.into_iter().find(in_the_way) {
            Some(run) => Err(Refusal::Busy(run.id)),
            None => Ok(()),
        }
    }

    fn rested(&self, treatment: &str) -> Result<(), Refusal> {
        let here = self.of_this_boot();
        let last = here
            .filter(|run| run.treatment == treatment)
            .filter_map(|run| Some((run.ended?, run)))
            .max_by(|one, other| one.0.total_cmp(&other.0));
        let Some((ended, run)) = last.filter(|_| !self.ask.force) else {
            return Ok(());
        };
        let pause = if run.discourages() {
            self.policy.backoff
        } else if matches!(self.ask.trigger, Trigger::Manual { .. }) {
            return Ok(());
        } else {
            self.policy.cooldown
        };
        let left = ended + pause.as_secs_f64() - self.now.boot_seconds;
        if left > 0.0 {
            return Err(Refusal::CoolDown {
                seconds: left.ceil() as u64,
                ended: run.state,
            });
        }
        Ok(())
    }

    /// Of those that no person has begun.
    fn seldom(&self) -> Result<(), Refusal> {
        if matches!(self.ask.trigger, Trigger::Manual { .. }) {
            return Ok(());
        }
        let an_hour_ago = self.now.boot_seconds - 3_600.0;
        let lately = self
            .of_this_boot()
            .filter(|run| !matches!(run.trigger, Trigger::Manual { .. }))
            .filter(|run| run.began > an_hour_ago)
            .count();
        if lately >= self.policy.max_per_hour as usize {
            return Err(Refusal::HourlyCap(self.policy.max_per_hour));
        }
        Ok(())
    }

    fn of_this_boot(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(|run| run.boot == self.boot)
    }
}
