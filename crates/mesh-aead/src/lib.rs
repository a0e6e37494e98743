//! Sealing and opening of transport packets.
