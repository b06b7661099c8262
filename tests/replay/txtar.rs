//! Go's txtar format: files in one text, each below a line `-- NAME --`.

use std::collections::BTreeMap;

/// The files by name. What stands before the first is a comment.
pub(crate) fn files(text: &str) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut current: Option<&mut String> = None;
    for line in text.split_inclusive('\n') {
        let name = line
            .trim_end()
            .strip_prefix("-- ")
            .and_then(|rest| rest.strip_suffix(" --"));
        match (name, &mut current) {
            (Some(name), _) => current = Some(files.entry(name.trim().to_owned()).or_default()),
            (None, Some(file)) => file.push_str(line),
            (None, None) => {}
        }
    }
    files
}
