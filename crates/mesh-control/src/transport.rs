//! The numbers of the QUIC transport.

use std::{sync::Arc, time::Duration};

use quinn::{TransportConfig, VarInt};

/// How often a client lets itself be heard of when it has nothing to say.
///
/// Three go into [`IDLE_TIMEOUT`], so that two may be lost. It also keeps the mapping of a NAT open;
/// the shortest in use for UDP are 30 s.
pub const KEEP_ALIVE: Duration = Duration::from_secs(3);

/// How long a connection lives without a word from the other side.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Questions that one client may have open at a time.
const QUESTIONS_MAX: u32 = 8;

/// Notices that one client may have unread.
const NOTICES_MAX: u32 = 64;

/// What a server's memory may be made to hold by one connection, in bytes: 2 000 strangers are half a
/// gigabyte. A pushed roster of 16 MiB over a round trip of 50 ms takes 4 s.
const SERVER_WINDOW_BYTES: u32 = 256 * 1024;

/// What a client takes from its server before it reads, in bytes.
const CLIENT_WINDOW_BYTES: u32 = 1024 * 1024;

pub(crate) fn server() -> Arc<TransportConfig> {
    let mut config = common();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(QUESTIONS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(SERVER_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(SERVER_WINDOW_BYTES))
        .send_window(u64::from(CLIENT_WINDOW_BYTES));
    Arc::new(config)
}

pub(crate) fn client() -> Arc<TransportConfig> {
    let mut config = common();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(NOTICES_MAX))
        .stream_receive_window(VarInt::from_u32(CLIENT_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CLIENT_WINDOW_BYTES))
        .send_window(u64::from(SERVER_WINDOW_BYTES))
        .keep_alive_interval(Some(KEEP_ALIVE));
    Arc::new(config)
}

fn common() -> TransportConfig {
    let mut config = TransportConfig::default();
    let idle = VarInt::from_u32(u32::try_from(IDLE_TIMEOUT.as_millis()).unwrap_or(u32::MAX));
    config
        .max_idle_timeout(Some(idle.into()))
        .datagram_receive_buffer_size(None);
    config
}
