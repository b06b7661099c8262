//! How well the names of pods are known, in a sentence.

use super::{Terminal, fill};

use crate::model::{DirectoryReport, NodeReport};

/// What `probes` shows below its table.
pub fn names_as_text(names: Option<&DirectoryReport>, terminal: Terminal) -> String {
    let text = names.map_or_else(
        || "names of pods: switched off ([node] names)".to_owned(),
        sentence,
    );
    format!("\n{}", fill(&text, terminal.width(), "", ""))
}

/// The sentence for a report; a node without a runtime has no names to speak of.
pub(super) fn of(report: &NodeReport) -> Option<String> {
    let names = report.names.as_ref()?;
    let worth = names.source != "none" || names.error.is_some();
    worth.then(|| sentence(names))
}

/// Who tells them, how many there are, and what is wrong.
fn sentence(names: &DirectoryReport) -> String {
    let DirectoryReport {
        source,
        place,
        pods,
        containers,
        cut,
        others,
        ..
    } = names;
    let mut text = match source.as_str() {
        "" => "names of pods: no answer yet".to_owned(),
        "none" => format!("names of pods: {place}"),
        source => format!("names of {pods} pods, {containers} containers: by {source}, {place}"),
    };
    if *cut > 0 {
        text += &format!("; {cut} more have none, as [node] max_pods bounds them");
    }
    if !others.is_empty() {
        let others = others.join("; ");
        text += &format!("; not by {others}; [node] cri_socket selects one");
    }
    if let Some(error) = &names.error {
        text += &format!("; now: {error}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_and_what_is_wrong_are_both_said() {
        let names = DirectoryReport {
            source: "cri".to_owned(),
            place: "/run/containerd/containerd.sock".to_owned(),
            pods: 7,
            containers: 20,
            cut: 3,
            error: Some("refused".to_owned()),
            ..DirectoryReport::default()
        };
        assert_eq!(
            sentence(&names),
            "names of 7 pods, 20 containers: by cri, /run/containerd/containerd.sock; 3 more have \
             none, as [node] max_pods bounds them; now: refused"
        );
        let names = DirectoryReport {
            others: vec!["/run/crio/crio.sock: no pods".to_owned()],
            cut: 0,
            error: None,
            ..names
        };
        assert_eq!(
            sentence(&names),
            "names of 7 pods, 20 containers: by cri, /run/containerd/containerd.sock; not by \
             /run/crio/crio.sock: no pods; [node] cri_socket selects one"
        );
    }
}
