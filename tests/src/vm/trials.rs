//! From the matrix and the registry to tests, and to the boots that give them their outcomes.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::panic;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Result;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use serde_json::Value;

use super::board::Board;
use super::kernels::{Kernel, Matrix};
use super::report::say;
use super::unfixed::Unavailable;
use super::{conclude, session, this, vm};
use crate::protocol::{Outcome, Task};
use crate::scenario::{Faulty, HostTest, Registry, Scenario, Shape};

/// VMs of the matrix side by side: more of them slow each other down into time-outs. Beside them is
/// one of a [`HostTest`], which waits most of its time.
const AT_ONCE: usize = 2;

/// Tests that are tried a second time, when all others have ended, because they failed: a host that
/// others use too stalls an emulated machine now and then for longer than a scenario bears. Whatever
/// fails for a fault of the agent's fails again; where more fail than these, the fault is no host's.
const SECOND_TRIES: usize = 4;

/// The kernel on which the harness tests itself.
const OWN_KERNEL: &str = "6.12";

/// One scenario on one kernel, and what makes that a test.
#[derive(Debug, Clone)]
struct Case {
    name: String,
    kernel: Kernel,
    scenario: Scenario,
    /// For the harness's tests of itself: how it has to fail.
    fails_with: Option<&'static str>,
}

/// Where the outcomes of [`HostTest`]s are on the board, which has kernels there.
const HOST: &str = "host";

/// What has failed once. Its test has no outcome yet.
#[derive(Debug)]
enum Failure {
    Scenario(Boot),
    Host(HostTest),
}

/// What is to be tried a second time.
#[derive(Debug, Default)]
struct SecondTries(Mutex<Vec<Failure>>);

/// All tests there are.
#[derive(Debug)]
pub(crate) struct Plan {
    cases: Vec<Case>,
    host: &'static [HostTest],
}

/// The scenarios of one kernel in one shape of machine, for as few boots as possible.
#[derive(Debug, Clone)]
pub(crate) struct Boot {
    pub(crate) kernel: Kernel,
    pub(crate) shape: Shape,
    pub(crate) tasks: Vec<Task>,
}

impl Plan {
    pub(crate) fn new(matrix: &Matrix, registry: &Registry) -> Self {
        let mut cases = Vec::new();
        for kernel in &matrix.kernels {
            let of_matrix = registry.matrix.iter();
            let of_matrix = of_matrix.filter(|scenario| kernel.runs(scenario.name));
            cases.extend(of_matrix.map(|scenario| Case::of_matrix(kernel, *scenario)));
            if kernel.name == OWN_KERNEL {
                let faulty = registry.faulty.iter();
                cases.extend(faulty.map(|faulty| Case::of_harness(kernel, *faulty)));
            }
        }
        let host = registry.host;
        Self { cases, host }
    }

    pub(crate) fn trials(&self, board: &Arc<Board>) -> Vec<Trial> {
        let of_case = |case: &Case| {
            let (case, board) = (case.clone(), Arc::clone(board));
            Trial::ignorable_test(case.name.clone(), move || {
                case.judge(board.outcome(&case.kernel.name, case.scenario.name))
            })
        };
        let of_host = |test: &HostTest| {
            let (name, board) = (test.name, Arc::clone(board));
            Trial::ignorable_test(name, move || completion(board.outcome(HOST, name)))
        };
        let cases = self.cases.iter().map(of_case);
        cases.chain(self.host.iter().map(of_host)).collect()
    }

    /// The same tests, with a reason not to run them.
    pub(crate) fn ignored(&self, why: &'static str) -> Vec<Trial> {
        let cases = self.cases.iter().map(|case| case.name.as_str());
        let names = cases.chain(self.host.iter().map(|test| test.name));
        let ignore = move || Ok(Completion::ignored_with(why));
        names
            .map(|name| Trial::ignorable_test(name, ignore))
            .collect()
    }

    /// What has to be booted for the tests that the arguments select.
    pub(crate) fn boots(&self, arguments: &Arguments) -> Vec<Boot> {
        let mut boots = Vec::<Boot>::new();
        let selected = |case: &&Case| is_selected(&case.name, arguments);
        for case in self.cases.iter().filter(selected) {
            match boots.iter_mut().find(|boot| boot.suits(case)) {
                Some(boot) => boot.tasks.push(case.task()),
                None => boots.push(Boot::of(case)),
            }
        }
        boots
    }

    /// What a scenario of a boot is when it fails, unless it has to.
    fn failure(&self, boot: &Boot, scenario: &str) -> Option<Failure> {
        let mut cases = self.cases.iter();
        let case = cases
            .find(|case| case.scenario.name == scenario && case.kernel.name == boot.kernel.name)?;
        match case.fails_with {
            Some(_) => None,
            None => Some(Failure::Scenario(Boot::of(case))),
        }
    }

    fn host_tests(&self, arguments: &Arguments) -> impl Iterator<Item = HostTest> {
        let selected = |test: &&HostTest| is_selected(test.name, arguments);
        self.host.iter().filter(selected).copied()
    }
}

impl Boot {
    fn of(case: &Case) -> Self {
        Self {
            kernel: case.kernel.clone(),
            shape: case.scenario.shape,
            tasks: vec![case.task()],
        }
    }

    fn suits(&self, case: &Case) -> bool {
        self.kernel.name == case.kernel.name && self.shape == case.scenario.shape
    }
}

fn is_selected(name: &str, arguments: &Arguments) -> bool {
    let trial = Trial::test(name, || Ok(()));
    !arguments.is_filtered_out(&trial) && !arguments.is_ignored(&trial)
}

fn completion(outcome: Outcome) -> Result<Completion, Failed> {
    match outcome {
        Outcome::Passed | Outcome::Measured(_) => Ok(Completion::Completed),
        Outcome::Skipped(why) => Ok(Completion::ignored_with(why)),
        Outcome::Failed(why) => Err(why.into()),
    }
}

impl Case {
    fn of_matrix(kernel: &Kernel, scenario: Scenario) -> Self {
        Self {
            name: format!("vm::{}::{}", kernel.name, scenario.name),
            kernel: kernel.clone(),
            scenario,
            fails_with: None,
        }
    }

    fn of_harness(kernel: &Kernel, faulty: Faulty) -> Self {
        Self {
            name: faulty.scenario.name.to_owned(),
            kernel: kernel.clone(),
            scenario: faulty.scenario,
            fails_with: Some(faulty.fails_with),
        }
    }

    fn task(&self) -> Task {
        Task::new(&self.scenario, Value::Null)
    }

    fn judge(&self, outcome: Outcome) -> Result<Completion, Failed> {
        match (outcome, self.fails_with) {
            (Outcome::Failed(why), Some(wanted)) if why.contains(wanted) => {
                Ok(Completion::Completed)
            }
            (outcome, Some(wanted)) => {
                Err(format!("a failure with {wanted:?} was wanted, not {outcome:?}").into())
            }
            (outcome, None) => completion(outcome),
        }
    }
}

/// Boots what is selected while libtest-mimic waits for the outcomes.
pub(crate) fn run(
    matrix: &Matrix,
    plan: &Plan,
    board: &Arc<Board>,
    mut arguments: Arguments,
) -> Result<ExitCode> {
    this()?;
    let trials = plan.trials(board);
    // A test does nothing but wait, so each can have a thread: results show as they come.
    arguments.test_threads.get_or_insert(trials.len().max(1));
    let mut boots = plan.boots(&arguments);
    // The longest first: what begins last then ends soon.
    boots.sort_by_key(|boot| Reverse(boot.tasks.len()));
    let boots = Mutex::new(VecDeque::from(boots));
    let host = plan.host_tests(&arguments).collect::<Vec<_>>();
    let second = SecondTries::default();
    let first = |boot: &Boot, scenario: &str, outcome| {
        if !second.takes(plan.failure(boot, scenario), &outcome) {
            board.publish(&boot.kernel.name, scenario, outcome);
        }
    };
    Ok(thread::scope(|scope| {
        scope.spawn(|| {
            thread::scope(|scope| {
                for _ in 0..AT_ONCE {
                    scope.spawn(|| take_boots(matrix, &boots, board, &first));
                }
                scope.spawn(|| {
                    for test in host {
                        let outcome = run_on_host(test);
                        if !second.takes(Some(Failure::Host(test)), &outcome) {
                            board.publish(HOST, test.name, outcome);
                        }
                    }
                });
            });
            second.run(matrix, board);
        });
        conclude(&arguments, trials)
    }))
}

impl SecondTries {
    /// Whether the test's outcome is that of its second try.
    fn takes(&self, failure: Option<Failure>, outcome: &Outcome) -> bool {
        let (Some(failure), Outcome::Failed(why)) = (failure, outcome) else {
            return false;
        };
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() == SECOND_TRIES {
            return false;
        }
        say!("{failure} failed, and has a second try at the end: {why}");
        failures.push(failure);
        true
    }

    fn run(&self, matrix: &Matrix, board: &Board) {
        let failures = mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for failure in failures {
            let name = failure.to_string();
            let report = |outcome: &Outcome| match outcome {
                Outcome::Failed(_) => say!("{name} failed at its second try too"),
                _ => say!("{name} passed at its second try"),
            };
            match failure {
                Failure::Scenario(boot) => {
                    run_boot(matrix, &boot, board, &|boot, scenario, outcome| {
                        report(&outcome);
                        board.publish(&boot.kernel.name, scenario, outcome);
                    })
                }
                Failure::Host(test) => {
                    let outcome = run_on_host(test);
                    report(&outcome);
                    board.publish(HOST, test.name, outcome);
                }
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scenario(boot) => {
                let scenarios = boot.tasks.iter().map(|task| task.name.as_str());
                let scenarios = scenarios.collect::<Vec<_>>().join(", ");
                write!(f, "kernel {}: {scenarios}", boot.kernel.name)
            }
            Self::Host(test) => f.write_str(test.name),
        }
    }
}

/// What hears of the end of a scenario.
type Publish<'a> = dyn Fn(&Boot, &str, Outcome) + Sync + 'a;

/// Does one after the other until there are no more.
fn take_boots(
    matrix: &Matrix,
    boots: &Mutex<VecDeque<Boot>>,
    board: &Board,
    publish: &Publish<'_>,
) {
    let next = || {
        boots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    };
    while let Some(boot) = next() {
        run_boot(matrix, &boot, board, publish);
    }
}

fn run_on_host(test: HostTest) -> Outcome {
    match panic::catch_unwind(test.run) {
        Ok(Ok(())) => Outcome::Passed,
        Ok(Err(error)) => Outcome::Failed(format!("{error:#}")),
        Err(_) => Outcome::Failed("it panicked".into()),
    }
}

fn run_boot(matrix: &Matrix, boot: &Boot, board: &Board, publish: &Publish<'_>) {
    if let Err(error) = try_boot(matrix, boot, publish) {
        let outcome = match error.is::<Unavailable>() {
            true => Outcome::Skipped(format!("{error:#}")),
            false => Outcome::Failed(format!("{error:#}")),
        };
        for task in &boot.tasks {
            board.publish_if_open(&boot.kernel.name, &task.name, outcome.clone());
        }
    }
}

fn try_boot(matrix: &Matrix, boot: &Boot, publish: &Publish<'_>) -> Result<()> {
    let vm = vm(matrix, &boot.kernel, boot.shape)?;
    let name = &boot.kernel.name;
    session::run(name, &vm, &boot.tasks, &mut |scenario, outcome| {
        publish(boot, scenario, outcome);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_that_fail_are_tried_again() {
        fn failure(name: &'static str) -> Option<Failure> {
            let run = || Ok(());
            Some(Failure::Host(HostTest { name, run }))
        }
        let failed = Outcome::Failed("the host stood still".into());
        let second = SecondTries::default();
        assert!(!second.takes(failure("healthy"), &Outcome::Passed));
        assert!(!second.takes(
            failure("another kernel's"),
            &Outcome::Skipped(String::new())
        ));
        assert!(!second.takes(None, &failed), "this one has to fail");
        for _ in 0..SECOND_TRIES {
            assert!(second.takes(failure("sick"), &failed));
        }
        assert!(!second.takes(failure("one too many"), &failed));

        let board = Board::default();
        second.run(&Matrix::load().unwrap(), &board);
        assert_eq!(board.outcome(HOST, "sick"), Outcome::Passed);
    }
}
