//! What a controller keeps: rosters, presence, pending keys, the audit log.
