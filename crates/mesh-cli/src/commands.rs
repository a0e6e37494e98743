//! One file a noun: parse, call, render.

pub(crate) mod agent;
pub(crate) mod completions;
pub(crate) mod controller;
pub(crate) mod demo;
pub(crate) mod hosts;
pub(crate) mod import;
pub(crate) mod inventory;
pub(crate) mod invite;
pub(crate) mod join;
pub(crate) mod keygen;
pub(crate) mod lint;
pub(crate) mod logs;
pub(crate) mod machine;
pub(crate) mod man;
pub(crate) mod netcheck;
pub(crate) mod pending;
pub(crate) mod ping;
pub(crate) mod resolver;
pub(crate) mod rule;
pub(crate) mod service;
pub(crate) mod status;
pub(crate) mod version;
pub(crate) mod why;
