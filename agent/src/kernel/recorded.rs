//! For tests: what `nodemedic probes --facts` printed on the kernels of the matrix
//! (`cargo xtask record`), and those kernels with a fact less.

use serde_json::Value;

use super::KernelFacts;

/// Oldest first.
const RECORDED: [&str; 4] = [
    include_str!("../../../tests/recorded/linux-5.10.json"),
    include_str!("../../../tests/recorded/linux-6.1.json"),
    include_str!("../../../tests/recorded/linux-6.12.json"),
    include_str!("../../../tests/recorded/linux-7.3.json"),
];

/// All of them, oldest first.
pub fn all() -> impl Iterator<Item = KernelFacts> {
    RECORDED
        .into_iter()
        .map(|json| serde_json::from_str(json).expect("a recording is what the agent writes"))
}

/// The one that has most.
pub fn newest() -> KernelFacts {
    all().last().expect("there are recordings")
}

/// Each kernel with each fact taken away in turn, and with each declared unknown.
pub fn damaged() -> impl Iterator<Item = KernelFacts> {
    all().flat_map(|facts| {
        let whole = serde_json::to_value(&facts).expect("facts have a form in JSON");
        let mut kernels = Vec::new();
        for path in paths(&whole, String::new()) {
            for damage in [remove, declare_unknown] {
                let mut damaged = whole.clone();
                damage(&mut damaged, &path);
                kernels.extend(serde_json::from_value::<KernelFacts>(damaged).ok());
            }
        }
        kernels
    })
}

/// JSON pointers to all that a value holds.
fn paths(value: &Value, path: String) -> Vec<String> {
    let Value::Object(members) = value else {
        return vec![path];
    };
    let inside = members
        .iter()
        .flat_map(|(name, value)| paths(value, format!("{path}/{}", name.replace('/', "~1"))));
    [path.clone()].into_iter().chain(inside).collect()
}

fn remove(value: &mut Value, path: &str) {
    let Some((parent, name)) = path.rsplit_once('/') else {
        return;
    };
    if let Some(Value::Object(members)) = value.pointer_mut(parent) {
        members.remove(&name.replace("~1", "/"));
    }
}

fn declare_unknown(value: &mut Value, path: &str) {
    if let Some(fact) = value.pointer_mut(path) {
        *fact = serde_json::json!({ "unknown": "for a test" });
    }
}
