#![allow(missing_docs, clippy::print_stdout)]
use mesh_testkit::world::recovery::trace_udp_lost;
fn main() { let seed = std::env::args().nth(1).unwrap().parse().unwrap(); trace_udp_lost(seed); }
