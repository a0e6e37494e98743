//! The agent: a machine's membership of the mesh.
