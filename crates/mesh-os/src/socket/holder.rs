//! Finds the process that has a port.

use super::{Holder, Transport};

#[cfg(target_os = "linux")]
mod linux;

/// Who has `port`, as far as the system tells.
pub(super) fn find(transport: Transport, port: u16) -> Holder {
    #[cfg(target_os = "linux")]
    {
        linux::find(transport, port)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (transport, port);
        Holder::Unknown
    }
}
