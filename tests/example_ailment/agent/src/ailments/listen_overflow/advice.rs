//! What a person can do against it, beside the treatments.

/// Advice for a listener that is full.
pub(super) fn advice() -> Vec<String> {
    vec!["run more replicas of the service, or give it more CPU to accept connections".to_owned()]
}
