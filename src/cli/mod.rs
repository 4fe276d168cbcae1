//! The command line.

use clap::{Args, Parser, Subcommand};

use crate::app;
use crate::config::{Options, Secret};

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
    /// Bring the schema of a PostgreSQL database up to date and exit
    Migrate(MigrateOptions),
}

/// What `migrate` can be told.
#[derive(Debug, Args)]
struct MigrateOptions {
    /// As for serve
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: Secret,
    /// As for serve
    #[arg(long, env = "TRACKTAGS_DATABASE_SCHEMA", value_name = "NAME", default_value = "tracktags")]
    database_schema: String,
}

impl Cli {
    /// Does what was asked. An error is a sentence for whoever asked.
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Serve(options) => app::serve(&options.resolve()?),
            Command::Migrate(options) => app::migrate(&options.database_url, &options.database_schema),
        }
    }
}
