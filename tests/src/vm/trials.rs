//! From the matrix and the registry to tests, and to the boots that give them their outcomes.

use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Result;
use libtest_mimic::{Arguments, Completion, Failed, Trial};

use super::board::Board;
use super::kernels::{Kernel, Matrix};
use super::{conclude, session, this, vm};
use crate::protocol::{Outcome, Task};
use crate::scenario::{Faulty, Registry, Scenario};

/// VMs side by side: more of them slow each other down into time-outs.
const AT_ONCE: usize = 2;

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

/// All tests there are.
#[derive(Debug)]
pub(crate) struct Plan {
    cases: Vec<Case>,
}

/// The scenarios of one kernel, for as few boots as possible.
#[derive(Debug, Clone)]
pub(crate) struct Boot {
    pub(crate) kernel: Kernel,
    pub(crate) tasks: Vec<Task>,
}

impl Plan {
    pub(crate) fn new(matrix: &Matrix, registry: &Registry) -> Self {
        let mut cases = Vec::new();
        for kernel in &matrix.kernels {
            let of_matrix = registry.matrix.iter();
            cases.extend(of_matrix.map(|scenario| Case::of_matrix(kernel, *scenario)));
            if kernel.name == OWN_KERNEL {
                let faulty = registry.faulty.iter();
                cases.extend(faulty.map(|faulty| Case::of_harness(kernel, *faulty)));
            }
        }
        Self { cases }
    }

    pub(crate) fn trials(&self, board: &Arc<Board>) -> Vec<Trial> {
        let trial = |case: &Case| {
            let (case, board) = (case.clone(), Arc::clone(board));
            Trial::ignorable_test(case.name.clone(), move || {
                case.judge(board.outcome(&case.kernel.name, case.scenario.name))
            })
        };
        self.cases.iter().map(trial).collect()
    }

    /// The same tests, with a reason not to run them.
    pub(crate) fn ignored(&self, why: &'static str) -> Vec<Trial> {
        let trial = |case: &Case| {
            let ignore = move || Ok(Completion::ignored_with(why));
            Trial::ignorable_test(case.name.clone(), ignore)
        };
        self.cases.iter().map(trial).collect()
    }

    /// What has to be booted for the tests that the arguments select.
    pub(crate) fn boots(&self, arguments: &Arguments) -> Vec<Boot> {
        let mut boots = Vec::<Boot>::new();
        for case in self.cases.iter().filter(|case| case.is_selected(arguments)) {
            let task = case.task();
            match boots
                .iter_mut()
                .find(|boot| boot.kernel.name == case.kernel.name)
            {
                Some(boot) => boot.tasks.push(task),
                None => boots.push(Boot {
                    kernel: case.kernel.clone(),
                    tasks: vec![task],
                }),
            }
        }
        boots
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
        Task {
            name: self.scenario.name.to_owned(),
            limit: self.scenario.limit,
        }
    }

    fn is_selected(&self, arguments: &Arguments) -> bool {
        let trial = Trial::test(self.name.clone(), || Ok(()));
        !arguments.is_filtered_out(&trial) && !arguments.is_ignored(&trial)
    }

    fn judge(&self, outcome: Outcome) -> Result<Completion, Failed> {
        match (outcome, self.fails_with) {
            (Outcome::Failed(why), Some(wanted)) if why.contains(wanted) => {
                Ok(Completion::Completed)
            }
            (outcome, Some(wanted)) => {
                Err(format!("a failure with {wanted:?} was wanted, not {outcome:?}").into())
            }
            (Outcome::Passed, None) => Ok(Completion::Completed),
            (Outcome::Skipped(why), None) => Ok(Completion::ignored_with(why)),
            (Outcome::Failed(why), None) => Err(why.into()),
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
    let queue = Mutex::new(VecDeque::from(plan.boots(&arguments)));
    Ok(thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| work(matrix, &queue, board));
        }
        conclude(&arguments, trials)
    }))
}

/// Takes one boot after the other until there are no more.
fn work(matrix: &Matrix, queue: &Mutex<VecDeque<Boot>>, board: &Board) {
    let next = || {
        queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    };
    while let Some(boot) = next() {
        if let Err(error) = run_boot(matrix, &boot, board) {
            for task in &boot.tasks {
                board.fail_if_open(&boot.kernel.name, &task.name, &format!("{error:#}"));
            }
        }
    }
}

fn run_boot(matrix: &Matrix, boot: &Boot, board: &Board) -> Result<()> {
    let vm = vm(matrix, &boot.kernel)?;
    let name = &boot.kernel.name;
    session::run(name, &vm, &boot.tasks, &mut |scenario, outcome| {
        board.publish(name, scenario, outcome);
    })
}
