//! What this machine is called.

/// The machine's own name, as the system has it; `None` if it has none, or one that is not UTF-8.
pub fn name() -> Option<String> {
    let name = nix::unistd::gethostname().ok()?.into_string().ok()?;
    (!name.is_empty()).then_some(name)
}
