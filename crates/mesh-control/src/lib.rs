//! The control plane's channel: QUIC between raw public keys, one framed message a question.
