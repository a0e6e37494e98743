//! The controller: admits machines, distributes rosters, introduces peers.
