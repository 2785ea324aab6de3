//! `quorate cert`: the authority, nodes, clients.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use crate::domain::node_name::NodeName;
use crate::supervisor::ExitCode;
use crate::transport::certificate::{self, Pem};

use super::failure::Failure;
use super::output;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  quorate cert ca --dir pki
  quorate cert node n1 --host n1.example.org --dir pki
  quorate cert client alice --dir pki

Keys are readable by their owner only, and a file that exists is never overwritten.")]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Make the cluster's authority: DIR/ca.pem and DIR/ca.key.
    Ca {
        /// Where to.
        #[arg(long, default_value = ".")]
        dir: PathBuf,
        /// The authority's name, for people.
        #[arg(long, default_value = "Quorate CA")]
        name: String,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Make a node's certificate: DIR/NAME.pem and DIR/NAME.key.
    Node {
        /// The node's name.
        name: NodeName,
        /// Host names and addresses under which clients reach it, beside localhost.
        #[arg(long = "host")]
        hosts: Vec<String>,
        #[command(flatten)]
        signer: Signer,
    },
    /// Make a client's certificate: DIR/PRINCIPAL.pem and DIR/PRINCIPAL.key.
    Client {
        /// Whose.
        principal: String,
        #[command(flatten)]
        signer: Signer,
    },
}

#[derive(Debug, clap::Args)]
struct Signer {
    /// Where to.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Where the authority's ca.pem and ca.key are; without it in --dir.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Subcommands::Ca { dir, name, json } => {
            store(&certificate::make_ca(&name)?, &dir, "ca", json)
        }
        Subcommands::Node { name, hosts, signer } => {
            let made = certificate::make_node(&signer.authority()?, &name, &hosts)?;
            store(&made, &signer.dir, name.as_str(), signer.json)
        }
        Subcommands::Client { principal, signer } => {
            let is_file_name = !principal.is_empty() && !principal.contains(['/', '\0']);
            if !is_file_name {
                return Err(Failure::usage(format!("{principal:?} cannot name a file")));
            }
            let made = certificate::make_client(&signer.authority()?, &principal)?;
            store(&made, &signer.dir, &principal, signer.json)
        }
    }
}

impl Signer {
    fn authority(&self) -> anyhow::Result<Pem> {
        let (certificate, key) = certificate::paths(self.ca.as_ref().unwrap_or(&self.dir), "ca");
        Pem::load(&certificate, &key).map_err(|error| {
            Failure::usage(format!("{error}; make an authority with `quorate cert ca` first"))
        })
    }
}

fn store(made: &Pem, dir: &Path, name: &str, json: bool) -> anyhow::Result<ExitCode> {
    std::fs::create_dir_all(dir)?;
    let (certificate, key) = certificate::paths(dir, name);
    made.store(&certificate, &key)?;
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    if json {
        output::json(&json!({ "certificate": certificate, "key": key }));
    } else {
        output::line(format!("{certificate}\n{key}"));
    }
    Ok(ExitCode::DONE)
}
