//! What the local sockets say, versioned.
