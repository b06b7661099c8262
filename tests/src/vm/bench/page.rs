pub(super) fn render(m: &super::Measured, n: &super::host::Native, k: &str) -> anyhow::Result<String> { let _ = (n.idle_cpu, n.memory, &n.coverage); Ok(format!("{k} {:?}", m.0)) }
