//! From the matrix and the registry to tests, and to the boots that give them their outcomes.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::panic;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Result, ensure};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use serde_json::Value;

use super::board::{Board, Key};
use super::kernels::{Kernel, Matrix};
use super::report::{explained, say};
use super::session::{self, Progress};
use super::unfixed::Unavailable;
use super::{conclude, this, vm};
use crate::protocol::{Outcome, Task};
use crate::scenario::{Faulty, HostTest, Registry, Scenario, Shape};

/// VMs of the matrix side by side: in virtual time each keeps one CPU of the host busy. Beside them is
/// one of a [`HostTest`], which waits most of its time.
const AT_ONCE: usize = 2;

/// Scenarios of one boot. More boots cost a few seconds each; fewer leave one VM alone at the end.
const A_BOOT: usize = 20;

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
    /// # Errors
    ///
    /// Where a scenario names a kernel that is not in the matrix, or a kernel has no scenario.
    pub(crate) fn new(matrix: &Matrix, registry: &Registry) -> Result<Self> {
        let mut cases = Vec::new();
        for kernel in &matrix.kernels {
            let scenarios = registry.matrix.iter();
            let scenarios = scenarios.filter(|scenario| scenario.runs_on(&kernel.name));
            let before = cases.len();
            cases.extend(scenarios.map(|scenario| Case::of_matrix(kernel, *scenario)));
            ensure!(
                cases.len() > before,
                "no scenario runs on kernel {} of tests/kernels.toml",
                kernel.name
            );
            if kernel.name == OWN_KERNEL {
                let faulty = registry.faulty.iter();
                cases.extend(faulty.map(|faulty| Case::of_harness(kernel, *faulty)));
            }
        }
        let host = registry.host;
        Ok(Self { cases, host })
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

    /// All outcomes that a run with these arguments has.
    fn keys(&self, arguments: &Arguments) -> impl Iterator<Item = Key> {
        let cases = self.cases.iter();
        let cases = cases.filter(|case| is_selected(&case.name, arguments));
        let of_case = |case: &Case| (case.kernel.name.clone(), case.scenario.name.to_owned());
        let of_host = |test: HostTest| (HOST.to_owned(), test.name.to_owned());
        cases
            .map(of_case)
            .chain(self.host_tests(arguments).map(of_host))
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
        self.kernel.name == case.kernel.name
            && self.shape == case.scenario.shape
            && self.tasks.len() < A_BOOT
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
    board.expect(plan.keys(&arguments));
    Ok(thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| take_boots(matrix, &boots, board));
        }
        scope.spawn(|| {
            for test in host {
                let begun = Instant::now();
                let outcome = run_on_host(test);
                board.costs.host_test(test.name, begun.elapsed());
                board.publish(HOST, test.name, outcome);
            }
        });
        conclude(&arguments, trials)
    }))
}

/// Does one after the other until there are no more.
fn take_boots(matrix: &Matrix, boots: &Mutex<VecDeque<Boot>>, board: &Board) {
    let next = || {
        boots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    };
    while let Some(boot) = next() {
        run_boot(matrix, &boot, board);
    }
}

fn run_on_host(test: HostTest) -> Outcome {
    match panic::catch_unwind(test.run) {
        Ok(Ok(())) => Outcome::Passed,
        Ok(Err(error)) => Outcome::Failed(format!("{error:#}")),
        Err(_) => Outcome::Failed("it panicked".into()),
    }
}

fn run_boot(matrix: &Matrix, boot: &Boot, board: &Board) {
    if let Err(error) = try_boot(matrix, boot, board) {
        let why = explained(&error);
        let outcome = match error.is::<Unavailable>() {
            true => Outcome::Skipped(why),
            false => Outcome::Failed(why),
        };
        for task in &boot.tasks {
            board.publish(&boot.kernel.name, &task.name, outcome.clone());
        }
    }
}

fn try_boot(matrix: &Matrix, boot: &Boot, board: &Board) -> Result<()> {
    let vm = vm(matrix, &boot.kernel, boot.shape)?;
    let name = &boot.kernel.name;
    session::run(name, &vm, &boot.tasks, &mut |progress| match progress {
        Progress::Up(took) => board.costs.boot(took),
        Progress::BootAgain(why) => {
            say!("kernel {name} never came up and is booted once more: {why}");
            board.costs.boot_again(name, &why);
        }
        Progress::Ended {
            scenario,
            outcome,
            cost,
        } => {
            if let Some(cost) = cost {
                board.costs.scenario(format!("{name} {scenario}"), cost);
            }
            board.publish(name, &scenario, outcome);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{STOCK, Verdict};

    fn registry(scenarios: Vec<Scenario>) -> Registry {
        Registry {
            matrix: scenarios.leak(),
            faulty: &[],
            apart: &[],
            host: &[],
        }
    }

    fn scenario(name: String) -> Scenario {
        Scenario::new(name.leak(), |_| Ok(Verdict::Passed))
    }

    #[test]
    fn a_kernel_that_no_scenario_names_is_an_error() {
        let mut matrix = Matrix::load().unwrap();
        let registry = registry(vec![scenario("a::b".into())]);
        let error = Plan::new(&matrix, &registry).unwrap_err();
        assert!(error.to_string().contains("5.10-unfixed"), "{error}");
        matrix
            .kernels
            .retain(|kernel| STOCK.contains(&&*kernel.name));
        assert_eq!(Plan::new(&matrix, &registry).unwrap().cases.len(), 4);
    }

    #[test]
    fn many_scenarios_are_several_boots() {
        let mut matrix = Matrix::load().unwrap();
        matrix.restrict("6.1").unwrap();
        let mut scenarios = (0..A_BOOT + 1)
            .map(|number| scenario(format!("a::{number}")))
            .collect::<Vec<_>>();
        scenarios.push(scenario("a::two".into()).shape(Shape::TwoCpus));
        let plan = Plan::new(&matrix, &registry(scenarios)).unwrap();
        let boots = plan.boots(&Arguments::default());
        let tasks = boots.iter().map(|boot| boot.tasks.len());
        assert_eq!(tasks.collect::<Vec<_>>(), [A_BOOT, 1, 1]);
    }
}
