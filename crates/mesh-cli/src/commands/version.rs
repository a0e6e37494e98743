//! `mesh version`.

use crate::{
    failure::{Exit, Failure},
    output,
};

/// Show the version
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    let release = env!("CARGO_PKG_VERSION");
    let text = if args.json {
        format!(
            "{}\n",
            serde_json::json!({ "version": 1, "release": release })
        )
    } else {
        format!("mesh {release}\n")
    };
    output::answer(&text)?;
    Ok(Exit::Done)
}
