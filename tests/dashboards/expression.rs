//! Holds an expression of Prometheus' language against the agent's metrics.
//!
//! A misspelled metric or label is no error to Prometheus: the expression has no result, the panel
//! stays empty and the alert silent. So every part of an expression is given the labels that its
//! result can carry, and a label that cannot be there is a fault.

use std::collections::BTreeSet;

use promql_parser::label::{Labels as Names, METRIC_NAME, Matcher};
use promql_parser::parser::token::{
    T_BOTTOMK, T_COUNT_VALUES, T_LAND, T_LIMIT_RATIO, T_LIMITK, T_LOR, T_LUNLESS, T_TOPK,
};
use promql_parser::parser::value::ValueType;
use promql_parser::parser::{
    self, AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, VectorMatchCardinality,
    VectorSelector,
};

use crate::agent::Metrics;
use crate::check::Check;
use crate::shape::{Labels, Shape, listed};

/// These are of counters alone.
const OF_COUNTERS: [&str; 4] = ["rate", "irate", "increase", "resets"];

/// These would take a restart of the agent for a fall.
const OF_GAUGES: [&str; 4] = ["delta", "idelta", "deriv", "predict_linear"];

/// What there is to say of an expression.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) shape: Shape,
    /// Metrics of the agent that it names.
    pub(crate) metrics: BTreeSet<String>,
    pub(crate) faults: Vec<String>,
}

pub(crate) fn check(text: &str, known: &Metrics) -> Checked {
    let mut checker = Checker {
        known,
        metrics: BTreeSet::new(),
        faults: Vec::new(),
    };
    let shape = match parser::parse(text) {
        Ok(expression) => checker.shape(&expression),
        Err(error) => checker.fault(format!("it cannot be parsed: {error}")),
    };
    let Checker {
        metrics, faults, ..
    } = checker;
    let faults = faults
        .into_iter()
        .map(|fault| format!("{fault}, in `{}`", one_line(text)))
        .collect();
    Checked {
        shape,
        metrics,
        faults,
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

struct Checker<'a> {
    known: &'a Metrics,
    metrics: BTreeSet<String>,
    faults: Vec<String>,
}

impl Checker<'_> {
    fn fault(&mut self, fault: String) -> Shape {
        self.faults.push(fault);
        Shape::Unknown
    }

    fn shape(&mut self, expression: &Expr) -> Shape {
        match expression {
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Shape::Scalar,
            Expr::Paren(paren) => self.shape(&paren.expr),
            Expr::Unary(unary) => self.shape(&unary.expr),
            Expr::Subquery(subquery) => self.shape(&subquery.expr),
            Expr::VectorSelector(selector) => self.selector(selector),
            Expr::MatrixSelector(selector) => self.selector(&selector.vs),
            Expr::Aggregate(aggregate) => self.aggregate(aggregate),
            Expr::Binary(binary) => self.binary(binary),
            Expr::Call(call) => self.call(call),
            // The parser makes none.
            Expr::Extension(_) => Shape::Unknown,
        }
    }

    fn selector(&mut self, selector: &VectorSelector) -> Shape {
        let alternatives = selector.matchers.or_matchers.iter().flatten();
        let matchers: Vec<_> = selector
            .matchers
            .matchers
            .iter()
            .chain(alternatives)
            .collect();
        let by_matcher = matchers.iter().find(|matcher| matcher.name == METRIC_NAME);
        let name = selector
            .name
            .as_ref()
            .or(by_matcher.map(|matcher| &matcher.value));
        let Some(name) = name else {
            return self.fault("a selector names no metric".to_owned());
        };
        match self.known.series(name) {
            Ok(series) => {
                self.metrics.insert(series.metric);
                self.matchers(name, &matchers, &series.labels);
                Shape::Series(series.labels)
            }
            Err(fault) => self.fault(fault),
        }
    }

    fn matchers(&mut self, metric: &str, matchers: &[&Matcher], labels: &Labels) {
        for Matcher { name, .. } in matchers {
            if name != METRIC_NAME && !labels.contains(name) {
                self.faults.push(format!("{metric} has no label {name}"));
            }
        }
    }

    fn aggregate(&mut self, aggregate: &AggregateExpr) -> Shape {
        if let Some(parameter) = &aggregate.param {
            self.shape(parameter);
        }
        let inner = self.shape(&aggregate.expr);
        if let Some(modifier) = &aggregate.modifier {
            let operator = format!("{} by or without", aggregate.op);
            self.must_carry(&operator, modifier.labels(), &[&inner]);
        }
        let keeps = [T_TOPK, T_BOTTOMK, T_LIMITK, T_LIMIT_RATIO];
        if keeps.contains(&aggregate.op.id()) {
            return inner;
        }
        let grouped = inner.map(|inner| match &aggregate.modifier {
            Some(LabelModifier::Include(labels)) => set(labels),
            Some(LabelModifier::Exclude(labels)) => without(inner, labels),
            None => Labels::new(),
        });
        match aggregate.param.as_deref() {
            Some(Expr::StringLiteral(label)) if aggregate.op.id() == T_COUNT_VALUES => {
                grouped.map(|labels| with(labels, &label.val))
            }
            _ => grouped,
        }
    }

    fn call(&mut self, call: &Call) -> Shape {
        let name = call.func.name;
        let shapes: Vec<_> = call
            .args
            .args
            .iter()
            .map(|argument| self.shape(argument))
            .collect();
        self.kind(call);
        let series = shapes
            .iter()
            .find(|shape| **shape != Shape::Scalar)
            .cloned();
        let series = series.unwrap_or(Shape::Series(Labels::new()));
        match (name, text_arguments(call).as_slice()) {
            ("label_replace", [to, _, from, _]) => self.relabel(series, to, &[from]),
            ("label_join", [to, _, from @ ..]) => self.relabel(series, to, from),
            ("histogram_quantile" | "histogram_fraction", _) => {
                let le = Names::new(vec!["le"]);
                self.must_carry(name, &le, &[&series]);
                series.map(|labels| without(labels, &le))
            }
            _ if call.func.return_type == ValueType::Scalar => Shape::Scalar,
            _ => series,
        }
    }

    fn relabel(&mut self, series: Shape, to: &str, from: &[&str]) -> Shape {
        self.must_carry("label_replace", &Names::new(from.to_vec()), &[&series]);
        series.map(|labels| with(labels, to))
    }

    /// A counter starts anew with the agent, so it is asked for its rate; a gauge has none.
    fn kind(&mut self, call: &Call) {
        let name = call.func.name;
        let Some(Expr::MatrixSelector(selector)) = call.args.args.first().map(|first| &**first)
        else {
            return;
        };
        let metric = selector.vs.name.as_deref().unwrap_or_default();
        let Ok(series) = self.known.series(metric) else {
            return;
        };
        if OF_COUNTERS.contains(&name) && !series.is_counter {
            self.faults
                .push(format!("{name} of {metric}, which is a gauge"));
        }
        if OF_GAUGES.contains(&name) && series.is_counter {
            self.faults
                .push(format!("{name} of {metric}, which is a counter"));
        }
    }

    fn binary(&mut self, binary: &BinaryExpr) -> Shape {
        let (left, right) = (self.shape(&binary.lhs), self.shape(&binary.rhs));
        match (left, right) {
            (Shape::Unknown, _) | (_, Shape::Unknown) => Shape::Unknown,
            (Shape::Scalar, other) | (other, Shape::Scalar) => other,
            (Shape::Series(left), Shape::Series(right)) => {
                Shape::Series(self.matching(binary, left, right))
            }
        }
    }

    /// Series of both sides meet where the labels that are compared are equal; a side that lacks
    /// one of them never meets the other.
    fn matching(&mut self, binary: &BinaryExpr, left: Labels, right: Labels) -> Labels {
        if binary.op.id() == T_LOR {
            return left.union(&right).cloned().collect();
        }
        let modifier = binary.modifier.as_ref();
        let compared = modifier.and_then(|modifier| modifier.matching.as_ref());
        let (of_left, of_right) = match compared {
            Some(LabelModifier::Include(on)) => {
                let sides = [&Shape::Series(left.clone()), &Shape::Series(right.clone())];
                self.must_carry("on", on, &sides);
                (set(on), set(on))
            }
            Some(LabelModifier::Exclude(ignored)) => (
                without(left.clone(), ignored),
                without(right.clone(), ignored),
            ),
            None => (left.clone(), right.clone()),
        };
        if of_left != of_right {
            let (left, right) = (listed(&of_left), listed(&of_right));
            self.faults.push(format!(
                "the sides of `{}` never meet: on the left {left}; on the right {right}",
                binary.op
            ));
        }
        if [T_LAND, T_LUNLESS].contains(&binary.op.id()) {
            return left;
        }
        match modifier.map(|modifier| &modifier.card) {
            Some(VectorMatchCardinality::ManyToOne(taken)) => self.grouped(left, taken, right),
            Some(VectorMatchCardinality::OneToMany(taken)) => self.grouped(right, taken, left),
            _ => of_left,
        }
    }

    /// `many` keeps its labels and takes some of those of `one`.
    fn grouped(&mut self, many: Labels, taken: &Names, one: Labels) -> Labels {
        self.must_carry("group_left or group_right", taken, &[&Shape::Series(one)]);
        many.union(&set(taken)).cloned().collect()
    }

    fn must_carry(&mut self, who: &str, labels: &Names, sides: &[&Shape]) {
        for label in &labels.labels {
            for side in sides.iter().filter(|side| !side.carries(label)) {
                let there = match side {
                    Shape::Series(labels) => listed(labels),
                    Shape::Scalar | Shape::Unknown => "a number".to_owned(),
                };
                self.faults
                    .push(format!("{who}: no label {label}, there is {there}"));
            }
        }
    }
}

fn text_arguments(call: &Call) -> Vec<&str> {
    let arguments = call.args.args.iter().map(|argument| &**argument);
    let texts = arguments.filter_map(|argument| match argument {
        Expr::StringLiteral(text) => Some(text.val.as_str()),
        _ => None,
    });
    texts.collect()
}

fn set(labels: &Names) -> Labels {
    labels.labels.iter().cloned().collect()
}

fn with(mut labels: Labels, label: &str) -> Labels {
    labels.insert(label.to_owned());
    labels
}

fn without(mut labels: Labels, gone: &Names) -> Labels {
    labels.retain(|label| !gone.labels.contains(label));
    labels
}

#[rustfmt::skip]
pub(crate) const CHECKS: &[Check] = &[
    Check::new("expression::a_sound_one_passes", tests::a_sound_one_passes),
    Check::new("expression::each_fault_is_found", tests::each_fault_is_found),
    Check::new("expression::labels_are_followed_to_the_result", tests::labels_are_followed_to_the_result),
];

mod tests {
    use anyhow::{Context as _, Result, ensure};

    use super::check;
    use crate::agent::fake;
    use crate::check::{Verdict, found};
    use crate::shape::{Shape, listed};

    const SOUND: [&str; 8] = [
        "sum by (source) (rate(events_total[5m])) > 0",
        "histogram_quantile(0.9, sum by (le) (rate(pause_seconds_bucket[5m])))",
        "pressure / on (job, instance) group_left pressure_limit",
        "pressure > on (instance) group_left () (pressure_limit > 0)",
        "max by (job, instance) (pressure) / pressure_limit",
        "label_replace(pressure, \"side\", \"$1\", \"side\", \"(.*)\") unless pressure offset 1h",
        "pressure{side=\"left\"} * 1 or pressure{side=~\"r.*\"} * 2",
        "up{job=\"nodemedic\"} == 0",
    ];

    const FAULTY: [(&str, &str); 14] = [
        ("sum(rate(events_total[5m])", "cannot be parsed"),
        ("rate(events_total)", "cannot be parsed"),
        ("beat_total", "no metric beat_total"),
        ("pause_seconds", "is a histogram"),
        ("pause_seconds_buckets", "no metric pause_seconds_buckets"),
        ("{job=\"x\"}", "names no metric"),
        ("pressure{sied=\"left\"}", "has no label sied"),
        ("sum by (sied) (pressure)", "no label sied"),
        ("sum by (side) (sum by (job) (pressure))", "no label side"),
        ("pressure / pressure_limit", "never meet"),
        ("pressure * on (side) pressure_limit", "no label side"),
        (
            "histogram_quantile(0.9, sum(rate(pause_seconds_bucket[5m])))",
            "no label le",
        ),
        ("rate(pressure[5m])", "which is a gauge"),
        ("delta(events_total[5m])", "which is a counter"),
    ];

    pub(super) fn a_sound_one_passes() -> Result<Verdict> {
        for text in SOUND {
            let faults = check(text, &fake::metrics()).faults;
            ensure!(faults.is_empty(), "{text}: {faults:?}");
        }
        Ok(Verdict::Passed)
    }

    pub(super) fn each_fault_is_found() -> Result<Verdict> {
        for (text, wanted) in FAULTY {
            let faults = check(text, &fake::metrics()).faults;
            found(&faults, wanted).with_context(|| text.to_owned())?;
        }
        Ok(Verdict::Passed)
    }

    pub(super) fn labels_are_followed_to_the_result() -> Result<Verdict> {
        let cases = [
            ("pressure", "instance, job, side"),
            ("sum(pressure)", "no labels"),
            ("topk by (job) (3, pressure)", "instance, job, side"),
            ("sum without (side) (pressure)", "instance, job"),
            (
                "pressure * on (job) group_left pressure_limit",
                "instance, job, side",
            ),
            ("pressure_limit + ignoring (side) pressure", "instance, job"),
            ("vector(1)", "no labels"),
            ("count_values(\"value\", pressure)", "value"),
        ];
        for (text, wanted) in cases {
            match check(text, &fake::metrics()).shape {
                Shape::Series(labels) => ensure!(listed(&labels) == wanted, "{text}: {labels:?}"),
                other => anyhow::bail!("{text}: {other:?}"),
            }
        }
        Ok(Verdict::Passed)
    }
}
