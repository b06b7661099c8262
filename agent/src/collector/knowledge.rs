//! What holds of every judge: no verdict gets better by knowing less, nobody is named without a
//! number, and no counter that a kernel can show makes it panic. For tests.

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::{Number, Value};

use super::{Ailment, judged};

/// Takes each value that may be absent out of readings with a finding, one at a time and in pairs.
/// What is left must not be healthy. Returns how many readings were tried.
pub(crate) fn less_is_never_healthy<A: Ailment>(wrong: &[(&str, A::Reading)]) -> usize {
    let settings = A::Settings::default();
    let mut tried = 0;
    for (name, reading) in wrong {
        assert_eq!(state::<A>(reading, &settings), State::Found, "{name}");
        let whole = serde_json::to_value(reading).expect("it is data");
        let places = optional::<A>(&whole);
        for (i, first) in places.iter().enumerate() {
            let less = without(whole.clone(), first);
            for second in std::iter::once(first).chain(&places[i + 1..]) {
                let Some(less) = reading_of::<A>(without(less.clone(), second)) else {
                    continue;
                };
                tried += 1;
                let state = state::<A>(&less, &settings);
                assert_ne!(state, State::Healthy, "{name} without {first} and {second}");
                is_told_by_numbers::<A>(&less, &settings);
            }
        }
    }
    tried
}

/// Puts any numbers in the place of those of readings. What is found must be told by numbers, and
/// taking one more value away must not make it healthy, but for the places below `exempt`: there
/// numbers that contradict each other would be judged by those that are left.
pub(crate) fn any_numbers_are_judged<A: Ailment>(wrong: &[(&str, A::Reading)], exempt: &[&str]) {
    for (name, reading) in wrong {
        let whole = serde_json::to_value(reading).expect("it is data");
        let numbers = proptest::collection::vec(any::<u64>(), 64);
        let mut runner = TestRunner::new(Config::with_cases(64));
        let judged = runner.run(&numbers, |numbers| {
            let changed = with_numbers::<A>(whole.clone(), numbers.into_iter().cycle());
            is_judged_by_numbers::<A>(&changed, exempt)
        });
        if let Err(error) = judged {
            panic!("{name}: {error}");
        }
    }
}

fn is_judged_by_numbers<A: Ailment>(
    reading: &A::Reading,
    exempt: &[&str],
) -> Result<(), TestCaseError> {
    let settings = A::Settings::default();
    is_told_by_numbers::<A>(reading, &settings);
    if state::<A>(reading, &settings) != State::Found {
        return Ok(());
    }
    let json = serde_json::to_value(reading).expect("it is data");
    let is_exempt = |place: &String| exempt.iter().any(|it| place.starts_with(it));
    for place in optional::<A>(&json)
        .iter()
        .filter(|place| !is_exempt(place))
    {
        let less = reading_of::<A>(without(json.clone(), place));
        let state = less.map(|less| state::<A>(&less, &settings));
        prop_assert_ne!(state, Some(State::Healthy), "without {}", place);
    }
    Ok(())
}

/// What a reading is judged as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Healthy,
    Unknown,
    Found,
}

/// Whether anything was found, or could have been.
pub(crate) fn state<A: Ailment>(reading: &A::Reading, settings: &A::Settings) -> State {
    let (_, found) = judged::<A>(reading, settings);
    match (found.is_empty(), A::unknown(reading, settings).is_empty()) {
        (false, _) => State::Found,
        (true, false) => State::Unknown,
        (true, true) => State::Healthy,
    }
}

/// Nobody is named without a number, and no number is none.
pub(crate) fn is_told_by_numbers<A: Ailment>(reading: &A::Reading, settings: &A::Settings) {
    let (_, found) = judged::<A>(reading, settings);
    for finding in &found {
        for evidence in &finding.evidence {
            assert!(evidence.value.is_finite(), "{finding:?}");
        }
        for party in &finding.culprits {
            let digits = party.share.chars().any(|it| it.is_ascii_digit());
            assert!(digits && !party.share.contains("NaN"), "{finding:?}");
        }
    }
}

/// JSON pointers to the values that may be absent: the reading takes `null` there.
pub(crate) fn optional<A: Ailment>(reading: &Value) -> Vec<String> {
    let mut places = Vec::new();
    visit(&mut reading.clone(), String::new(), &mut |place, value| {
        if !value.is_null() && !place.is_empty() {
            places.push(place.to_owned());
        }
    });
    places.retain(|place| reading_of::<A>(without(reading.clone(), place)).is_some());
    places
}

/// Visits each value, those inside of another after it, with its JSON pointer.
fn visit(value: &mut Value, place: String, each: &mut impl FnMut(&str, &mut Value)) {
    each(&place, value);
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let key = key.replace('~', "~0").replace('/', "~1");
                visit(value, format!("{place}/{key}"), each);
            }
        }
        Value::Array(all) => {
            for (i, value) in all.iter_mut().enumerate() {
                visit(value, format!("{place}/{i}"), each);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A reading without the value at a JSON pointer.
pub(crate) fn without(mut reading: Value, place: &str) -> Value {
    if let Some(value) = reading.pointer_mut(place) {
        *value = Value::Null;
    }
    reading
}

fn reading_of<A: Ailment>(value: Value) -> Option<A::Reading> {
    serde_json::from_value(value).ok()
}

/// Each number as one of these, as far as the reading takes it.
fn with_numbers<A: Ailment>(
    mut reading: Value,
    mut numbers: impl Iterator<Item = u64>,
) -> A::Reading {
    let mut places = Vec::new();
    visit(&mut reading, String::new(), &mut |place, value| {
        if value.is_number() {
            places.push(place.to_owned());
        }
    });
    for place in places {
        let number = numbers.next().unwrap_or_default();
        let old = reading.pointer(&place).cloned().unwrap_or_default();
        let of_float = || Number::from_f64((number % 4_000_000) as f64 / 1e5);
        let candidates = if old.is_f64() {
            vec![of_float().map_or(Value::Null, Value::Number)]
        } else {
            // Bytes and nanoseconds, counters of usual size, and few.
            let widths = [44, 32, 16, 8, 1];
            let of = |width: u32| Value::from(number >> (64 - width));
            let first = (number % 5) as usize;
            widths[first..].iter().map(|width| of(*width)).collect()
        };
        for candidate in candidates.into_iter().chain([old]) {
            if let Some(value) = reading.pointer_mut(&place) {
                *value = candidate;
            }
            if reading_of::<A>(reading.clone()).is_some() {
                break;
            }
        }
    }
    reading_of::<A>(reading).expect("each number was tried")
}
