//! The command line.

use clap::{Parser, Subcommand};

use crate::app;
use crate::config::Options;

/// Exact, durable, live usage metering.
#[derive(Debug, Parser)]
#[command(name = "tracktags", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service
    #[command(args_override_self = true)]
    Serve(Box<Options>),
}

impl Cli {
    /// Does what was asked. An error is a sentence for whoever asked.
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Serve(options) => app::serve(&options.resolve()?),
        }
    }
}
